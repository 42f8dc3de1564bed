"""The command line: one file a verb, thin over the library."""

from pemeta.cli.app import app as app
from pemeta.cli.app import main as main
