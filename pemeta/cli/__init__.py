"""The command line: one file a verb, thin over the library; an error is one sentence and exit code 2."""

from pemeta.cli.app import app as app
from pemeta.cli.app import main as main
