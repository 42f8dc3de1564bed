"""``.. command-help:: VERB``: what ``pemeta VERB --help`` prints, so that the page cannot differ from the program."""

from docutils import nodes
from docutils.parsers.rst import Directive
from typer.testing import CliRunner

from pemeta.cli import app as command


class CommandHelp(Directive):
    optional_arguments = 1

    def run(self):
        result = CliRunner().invoke(
            command, [*self.arguments, "--help"], prog_name="pemeta", env={"COLUMNS": "100", "TERMINAL_WIDTH": "100"}
        )
        if result.exit_code:
            raise self.error(f"pemeta {' '.join(self.arguments)} --help failed: {result.output}")
        return [nodes.literal_block(result.output, result.output, language="text")]


def setup(app):
    app.add_directive("command-help", CommandHelp)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
