"""The command line: thin verbs over the library, one sentence and exit code 2 on an error."""

from __future__ import annotations

import io
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from pemeta.errors import PemetaError

if TYPE_CHECKING:
    from pemeta.experiments.runner import Runner  # loads PyTorch, and `pemeta --help` is to be fast

UsageError: Any = typer.BadParameter.__base__
"""A command line that cannot be parsed. Click's class; recent versions of typer have a click of their own."""


class Verbs(TyperGroup):
    """The commands; an error becomes one sentence and an exit code.

    Here and not around ``app()``, because typer turns an interrupt into an exit without its message.
    """

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Parse what stands before the command's name."""
        try:
            return super().make_context(info_name, args, parent, **extra)
        except UsageError as error:
            raise _misused(error) from None

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except UsageError as error:
            raise _misused(error) from None
        except PemetaError as error:
            if not error.told:
                typer.echo(f"pemeta: error: {error}", err=True)
            raise typer.Exit(2) from None
        except KeyboardInterrupt as interruption:
            typer.echo(f"\npemeta: {str(interruption) or 'stopped'}.", err=True)
            raise typer.Exit(130) from None


def _misused(error: Any) -> Exception:
    """Tell a wrong command line as any other error; only who gives no command at all gets the help."""
    if type(error).__name__ == "NoArgsIsHelpError":
        return error  # type: ignore[no-any-return]
    message = " ".join(str(error.format_message()).split()).rstrip(".")
    verb = f" {error.ctx.info_name}" if error.ctx is not None and error.ctx.parent is not None else ""
    typer.echo(f"pemeta: error: {message[0].lower()}{message[1:]}; see `pemeta{verb} --help`", err=True)
    return typer.Exit(2)


app = typer.Typer(
    cls=Verbs,
    help="Prime a pretrained model for parameter-efficient fine-tuning, fine-tune it on many tasks, and compare.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

ConfigFile = Annotated[Path, typer.Argument(help="YAML file that describes the run.", metavar="CONFIG")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="Values in place of the file's, such as finetuning.epochs=3.", metavar="KEY=VALUE"),
]


@app.command()
def run(
    config: ConfigFile,
    overrides: Overrides = None,
    jobs: Annotated[int, typer.Option(min=1, help="Runs to do at a time, each in a process of its own.")] = 1,
    device: Annotated[
        str | None,
        typer.Option(
            help="In place of the configuration's; several with commas between are used in turn.", metavar="D"
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what is done, being done and left.")] = False,
) -> None:
    """Prime, fine-tune and test every cell of CONFIG that is not done yet, then report."""
    from pemeta.experiments.config_file import load_config
    from pemeta.experiments.runner import Runner
    from pemeta.utils.distributed import process_group

    devices = device.split(",") if device else ()
    with process_group() as processes:
        runner = processes.each(
            lambda: Runner(load_config(config, overrides or ()), say=typer.echo, jobs=jobs, devices=devices)
        )
        if not dry_run:
            _run(runner, processes.first)
        elif processes.first:
            typer.echo("\n".join(runner.dry_run()))


def _run(runner: Runner, first: bool) -> None:
    """Run, and report; of several processes the first one reports."""
    from pemeta.errors import FailedRunsError
    from pemeta.utils.signals import termination_interrupts

    try:
        with termination_interrupts():
            runner.run()
    except FailedRunsError:
        if first and any((runner.folder / "records").glob("*.json")):
            try:
                _report(runner.folder)
            except PemetaError as error:  # what failed is to be told in any case
                typer.echo(f"no report: {error}")
        raise
    except KeyboardInterrupt as interruption:
        what = str(interruption) or "stopped"
        raise KeyboardInterrupt(f"{what}. What is finished is saved: the same command goes on from there") from None
    if not first:
        return
    _report(runner.folder)
    if command := runner.how_to_predict():
        typer.echo(f"Fine-tuned tasks are in {runner.folder / 'models'}; use one with: {command}")


@app.command()
def report(folder: Annotated[Path, typer.Argument(help="A run's output folder.", metavar="DIR")]) -> None:
    """Make the report of a run anew: on screen, in DIR/report.md and DIR/report.html, its pictures in DIR/figures."""
    _report(folder)


def _report(folder: Path) -> None:
    """On screen first: it can be read where it cannot be written."""
    from pemeta.experiments.report_files import read_report
    from pemeta.reporting import to_terminal, write_report

    found = read_report(folder)
    typer.echo(f"\n{to_terminal(found)}\n")
    write_report(folder, found)
    typer.echo(f"Written to {folder / 'report.md'} and {folder / 'report.html'}")


@app.command()
def methods(
    chosen: Annotated[
        list[str] | None,
        typer.Argument(
            help="As in a configuration, such as lora or '{name: lora, rank: 4}'; all of them where none.",
            metavar="METHOD",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="A folder or hub name: also say how many of its parameters a method adapts."),
    ] = None,
) -> None:
    """List the PE methods, with their fields, defaults, papers and, for a model, their sizes."""
    from pemeta.experiments.method_list import describe_methods

    for line in describe_methods(chosen or (), model):
        typer.echo(line)


@app.command()
def validate(
    config: ConfigFile,
    overrides: Overrides = None,
    load: Annotated[bool, typer.Option("--load", help="Also read all data and build each setting's model.")] = False,
) -> None:
    """Check CONFIG without running it, and say what it would do."""
    from pemeta.experiments.config_file import load_config

    checked = load_config(config, overrides or ())
    primed = {checked.primed_name(c.setting, c.seed) for c in checked.runs if checked.primer(c.setting)}
    sizes = [len(checked.settings), len(checked.targets), len(checked.seeds)]
    of = " x " if len(checked.runs) == math.prod(sizes) else ", "
    grid = of.join(f"{size} {what}" for size, what in zip(sizes, ("settings", "targets", "seeds"), strict=True))
    typer.echo(
        f"{config} is valid: {len(primed)} priming runs and {len(checked.runs)} fine-tuning runs ({grid}) "
        f"into {checked.output}"
    )
    if checked.to_search is not None:
        typer.echo(f"before them a search of {len(checked.to_search.runs)} runs")
    if load:
        from pemeta.experiments.build import Builder
        from pemeta.experiments.data_check import check_data

        builder = Builder(checked, checked.output, say=typer.echo)
        check_data(builder, checked.runs)
        for name, setting in checked.settings.items():
            model = builder.model(name, checked.seeds[0])
            if setting.priming is not None:
                setting.priming.prepare(model, checked.seeds[0])
        typer.echo("the backbone loads and all data can be read")


@app.command()
def plan(
    config: ConfigFile,
    overrides: Overrides = None,
    device: Annotated[
        str | None,
        typer.Option(help="h100, a100, l4, t4, cpu ...; the configuration's, on this machine, where not given."),
    ] = None,
    world_size: Annotated[int, typer.Option(min=1, help="Processes, each with a device of its own.")] = 1,
    length: Annotated[
        int | None, typer.Option(min=1, help="Word pieces of a sentence; the longest there can be where not given.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object: bytes, seconds, operations.")] = False,
) -> None:
    """Say what CONFIG would take, without running it: parameters, memory, operations and time of each stage."""
    import json

    from pemeta.estimate import estimate_grid, to_json, to_text
    from pemeta.experiments.config_file import load_config

    found = estimate_grid(load_config(config, overrides or ()), device, world_size, length)
    if as_json:
        typer.echo(json.dumps(to_json(found), ensure_ascii=False, indent=2))
        return
    for line in to_text(found):
        typer.echo(line)


@app.command()
def predict(
    folder: Annotated[
        Path, typer.Argument(help="A saved model, such as OUTPUT/models/SETTING-seed0.", metavar="MODEL_DIR")
    ],
    texts: Annotated[
        list[str],
        typer.Argument(help="One or more texts; `-` reads one from each line of standard input.", metavar="TEXT"),
    ],
    task: Annotated[
        str | None, typer.Option(help="A task in MODEL_DIR/tasks, or a task's folder; not needed where there is one.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object for each text, on a line of its own.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps ...")] = "auto",
) -> None:
    """Label TEXTs with a fine-tuned task.

    Words are what whitespace separates: put spaces around punctuation where the task's training data had them.
    """
    import json

    from pemeta.deploy.serving import Server, only_task

    given = [line.rstrip("\r\n") for line in sys.stdin] if texts == ["-"] else texts
    server = Server.load(folder, [task or only_task(folder)], device)
    for prediction in server.predict(server.tasks[0], given):
        typer.echo(json.dumps(prediction.to_json(), ensure_ascii=False) if as_json else str(prediction))


@app.command(
    "setup-learn2learn",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def setup_learn2learn(context: typer.Context) -> None:
    """Build and install learn2learn, which priming needs. Further options go to pip."""
    from pemeta.utils.learn2learn_setup import install_learn2learn

    install_learn2learn(context.args)


def main() -> None:
    """Entry point: exit code 0, 2 on an error, 130 when interrupted."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without → or θ is no reason to lose a run
    app()
