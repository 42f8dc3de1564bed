"""``pemeta schema``: the JSON schema of configurations."""

from __future__ import annotations

import typer


def schema() -> None:
    """Print the JSON schema of configurations, for editors.

    With a line `# yaml-language-server: $schema=pemeta.schema.json` at the top of a configuration, an editor that knows
    the YAML language server completes keys and names, explains them and marks mistakes.
    """
    from pemeta.experiments.config_schema import schema_text

    typer.echo(schema_text(), nl=False)
