"""The group of commands, which reports every error in one line."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from pemeta.errors import PemetaError, reason

UsageError: Any = typer.BadParameter.__base__
"""A command line that cannot be parsed. Click's class; recent versions of typer have a click of their own."""


class Verbs(TyperGroup):
    """The commands; an error becomes one sentence and an exit code.

    Here and not around ``app()``, because typer turns an interrupt into an exit without its message.
    """

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Parse the options before the command's name."""
        try:
            return super().make_context(info_name, args, parent, **extra)
        except UsageError as error:
            raise _misused(error) from None
        except OSError as error:  # --install-completion writes into the home folder
            typer.echo(f"pemeta: error: completion could not be installed: {reason(error)}", err=True)
            raise typer.Exit(2) from None

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except UsageError as error:
            raise _misused(error, ctx.invoked_subcommand) from None
        except PemetaError as error:
            if not error.reported_elsewhere:
                typer.echo(f"pemeta: error: {error}", err=True)
            raise typer.Exit(2) from None
        except KeyboardInterrupt as interruption:
            typer.echo(f"\npemeta: {str(interruption) or 'stopped'}.", err=True)
            raise typer.Exit(130) from None


def _misused(error: Any, verb: str | None = None) -> Exception:
    """Report a usage error in one line, like every other error; show the help only if no command was given."""
    if type(error).__name__ == "NoArgsIsHelpError":
        return error  # type: ignore[no-any-return]
    message = " ".join(str(error.format_message()).split()).rstrip(".")
    if error.ctx is not None:  # not every error of the parser has one
        verb = error.ctx.info_name if error.ctx.parent is not None else None
    where = f"pemeta {verb}" if verb else "pemeta"
    see = " See" if message.endswith("?") else "; see"  # some versions of typer ask whether another word was meant
    typer.echo(f"pemeta: error: {message[0].lower()}{message[1:]}{see} `{where} --help`", err=True)
    return typer.Exit(2)
