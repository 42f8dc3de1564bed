"""Language modelling of which only the ends are labelled, and the gradients of a run's steps."""

from dataclasses import dataclass

from tiny_tasks import VOCABULARY, pieces

from pemeta import EncodedBlocks, Task
from pemeta.training.optimizer import Optimization


@dataclass(frozen=True)
class Completions(EncodedBlocks):
    """Blocks of which only the end is to be predicted: one token of some, three of others, none of one."""

    def gold(self, index):
        labels = self.input_ids[index].clone()
        labels[: -(1 + 2 * (index % 2)) if index != 4 else None] = -100
        return labels


COMPLETIONS = Completions(VOCABULARY, pieces(3), 0)
PROMPTED = Task.causal_lm("prompted", COMPLETIONS)


def gradients(monkeypatch, run):
    """The gradient of each parameter before each of a run's updates."""
    found, step = [], Optimization.step

    def noted(self):
        found.append([None if p.grad is None else p.grad.clone() for p in self.parameters])
        return step(self)

    monkeypatch.setattr(Optimization, "step", noted)
    history = run()
    monkeypatch.undo()
    return found, history
