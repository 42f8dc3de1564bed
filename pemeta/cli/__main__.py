"""The command ``pemeta`` as ``python -m pemeta.cli``."""

from pemeta.cli.app import main

if __name__ == "__main__":  # processes of a run import this file too
    main()
