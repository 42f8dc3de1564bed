"""``python -m pemeta`` is the command ``pemeta``."""

from pemeta.cli import main

main()
