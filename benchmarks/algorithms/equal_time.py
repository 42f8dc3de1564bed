"""How many outer steps each setting of sentences.yaml can take in the time of ``meta``'s; time.yaml holds them.

    python benchmarks/algorithms/equal_time.py

times outer steps of each setting, with one thread. Nothing else should run on the machine.
"""

from __future__ import annotations

import statistics
from pathlib import Path

import torch
from tqdm import tqdm

from pemeta import prime
from pemeta.experiments.build import Builder
from pemeta.experiments.config_file import load_config
from pemeta.training.callbacks import Callback, TrainingState

HERE = Path(__file__).parent
STEPS, FIRST = 44, 4
"""Number of steps, and how many of them, the first, do not count."""


class StepSeconds(Callback):
    """The seconds of each step."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_step(self, state: TrainingState) -> None:
        """Keep the seconds of a step."""
        if state.last is not None:
            self.seconds.append(state.last.seconds)


def main() -> None:
    """Print the number of outer steps, and the seconds of one, for each setting."""
    config = load_config(HERE / "sentences.yaml")
    builder = Builder(config, Path(config.output))
    builder.prepare()
    torch.set_num_threads(1)
    seconds, steps = {}, {}
    for name, setting in tqdm(config.settings.items(), disable=None):
        if setting.priming is not None:
            watch, algorithm = StepSeconds(), setting.priming.model_copy(update={"outer_steps": STEPS})
            prime(builder.model(name, 0), builder.sources(), algorithm, progress=False, callbacks=[watch])
            # The mean of what is not extreme: hybrid has steps of two kinds.
            kept = sorted(watch.seconds[FIRST:])[4:-4]
            seconds[name], steps[name] = statistics.fmean(kept), setting.priming.outer_steps
    for name, one in seconds.items():
        reference = f"{name.partition('-')[0]}-meta"
        print(f"{name}: {round(steps[reference] * seconds[reference] / one)} steps of {1000 * one:.1f} ms")


if __name__ == "__main__":
    main()
