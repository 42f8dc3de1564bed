"""The entry point for running a grid: its search for values, and then its runs."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from pemeta.errors import ConfigError, FailedRunsError, counted
from pemeta.experiments.backbones import Home, Say
from pemeta.experiments.config import GridConfig, Run
from pemeta.experiments.grid_run import GridRun, Options
from pemeta.experiments.output_folder import exclusive
from pemeta.experiments.search import CHOSEN, choose, read_choices, with_choices
from pemeta.model.task_files import TASK_MANIFEST
from pemeta.reporting.choices import Choice
from pemeta.utils.devices import resolve_device
from pemeta.utils.distributed import Processes, device_of_process
from pemeta.utils.files import check_writable, write_json
from pemeta.utils.signatures import checked


@checked(jobs=1)
class Runner:
    """Runs the grid of a configuration in its output folder.

    The folder holds ``config.yaml`` (the resolved configuration), the results that
    :class:`~pemeta.experiments.output_folder.OutputFolder` names, ``search/`` with a grid of its own and
    ``chosen.json`` if values had to be chosen, and ``errors/`` with tracebacks of unexpected errors. Results that are
    there and of the same configuration are not computed again.

    Args:
        config: what to run.
        say: takes one line for each thing that is done.
        progress: show progress bars, where only one stage runs at a time.
        jobs: number of stages that run at a time, each in a process of its own if there are several. A script that
            wants several needs ``if __name__ == "__main__":`` around its code.
        devices: devices that these compute on, in turn; the configuration's if empty.
        home: folder of a backbone that is pretrained here; the output folder by default.
        warn: takes one line for each run that failed; ``say`` by default.
        log: file that gets a line of JSON for each event of each run; none by default.

    Where torch.distributed is initialised, its processes prime every model together, and share the fine-tuning runs.
    The first one speaks for all, and writes what they compute together.

    Raises:
        ConfigError: a device cannot be used here.
        OutputError: the log cannot be written.
    """

    def __init__(
        self,
        config: GridConfig,
        say: Say = print,
        progress: bool = True,
        jobs: int = 1,
        devices: Sequence[str] = (),
        home: str | Path | None = None,
        warn: Say | None = None,
        log: str | Path | None = None,
    ) -> None:
        self.given = config
        self.folder = Path(config.output)
        self._processes = Processes()
        first = self._processes.first
        self._options = Options(
            say=say if first else _discard,
            say_own=say,
            warn=(warn or say) if first else _discard,
            warn_own=warn or say,
            progress=progress and first,
            jobs=jobs,
            devices=self._usable(devices, jobs),
            home=Home(Path(home or self.folder), config.text_tasks),
            log=None if log is None else Path(log),
        )
        self._grid = GridRun(config, self._options)
        self._data_is_checked = False

    def _usable(self, devices: Sequence[str], jobs: int) -> tuple[str, ...]:
        """The devices to compute on, each checked here and not in a process of its own."""
        named = tuple(device.strip() for device in devices)
        if self._processes.size > 1:
            if jobs > 1 or len(named) > 1:
                raise ConfigError(
                    f"{self._processes.size} processes were started together and share the work; omit --jobs, and "
                    "give at most one --device"
                )
            named = (device_of_process(next(iter(named), self.given.device)),)
        for device in named:
            resolve_device(device)
        return named

    @property
    def config(self) -> GridConfig:
        """The configuration, with the values that a search has chosen."""
        return self._grid.config

    def run(self) -> None:
        """Run the hyper-parameter search, then every stage without a result.

        Raises:
            FailedRunsError: stages ended with an error; all others are done.
            OutputError: the output folder cannot be written, or a file in it cannot be read.
        """
        self._processes.only_first(lambda: check_writable(self.folder))
        with exclusive(self.folder, self._processes):
            self._choose_values()
            self._grid.run(self._check_data)

    def _search(self) -> GridRun | None:
        """The grid of the search; None without one. Whoever asks keeps it no longer than needed: it holds a model."""
        config = self.given.to_search
        return None if config is None else GridRun(config, self._options)

    def _check_data(self, runs: Sequence[Run]) -> None:
        """Check data once; before a search, which may take hours, that of all runs after it too."""
        if not self._data_is_checked:
            self._grid.check_data(runs)
            self._data_is_checked = True

    def _choose_values(self) -> None:
        """Run the search, if there is one, and take the values that it finds best."""
        search = self._search()
        if search is None:
            return
        candidates = counted(len(search.config.settings), "candidate")
        self._options.say(f"searching: {candidates}, {counted(len(search.config.runs), 'run')}")
        self._processes.only_first(lambda: check_writable(search.folder.path))
        try:
            with exclusive(search.folder.path, self._processes):
                search.run(lambda _: self._check_data(self.given.runs))
        except FailedRunsError as error:
            self._options.warn(f"in the search, {error}")  # other settings' candidates are complete
        choices = self._processes.all(lambda: self._best_of(search))[0]
        self._take(choices)
        for choice in choices.values():
            self._options.say(f"chosen for {choice.describe()}")
        chosen = {name: asdict(choice) for name, choice in choices.items()}
        self._processes.only_first(lambda: write_json(self.folder / CHOSEN, chosen))

    def _best_of(self, search: GridRun) -> dict[str, Choice]:
        return choose(self.given, search.records(), search.diverged())

    def _take(self, choices: Mapping[str, Choice]) -> None:
        self._grid = GridRun(with_choices(self.given, choices), self._options, self.given)

    def dry_run(self) -> list[str]:
        """Lines of text about what is done, running and left."""
        lines = []
        search = self._search()
        if search is not None:
            schedule = search.schedule()
            lines += ["search", *search.progress(schedule), ""]
            if schedule.left:
                choices = read_choices(self.folder / CHOSEN, self.given)
                searched = [name for name, setting in self.given.settings.items() if setting.candidates]
                if not all(name in choices for name in searched):
                    runs = counted(len(self.given.runs), "run")
                    return [*lines, f"then {runs} with the values that the search finds best"]
            else:
                choices = self._best_of(search)
                lines += [*(f"chosen for {choice.describe()}" for choice in choices.values()), ""]
            self._take(choices)
        return [*lines, *self._grid.progress(self._grid.schedule())]

    def how_to_predict(self) -> str | None:
        """A command that predicts with a task that was saved; None if none was."""
        folder = self._grid.folder
        for run in self.config.runs:
            if (folder.task_path(run) / TASK_MANIFEST).is_file():
                model = str(folder.model_path(run.setting, run.seed))
                return shlex.join(["pemeta", "predict", model, "--task", run.target, self.config.task.sample])
        return None


def _discard(_: str) -> None:
    """Discard a message."""
