"""Models that the learner's tests run on: a tiny BERT, and a module with tied weights."""

import torch
from tiny_models import shaken, tiny, with_heads
from torch import Tensor, nn

from pemeta import Adapter, Partition, PEMethod, PEModel

INNER_LR, STEPS = 0.1, 3


ADAPTER = Adapter(bottleneck=4)


class Tied(nn.Module):
    """An awkward module: weights tied within θ_p, within θ_a, and a parameter that nothing uses."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(3, 3)
        self.two = nn.Linear(3, 3)
        self.two.weight = self.one.weight
        self.low = nn.Linear(3, 3, bias=False)
        self.high = nn.Linear(3, 3, bias=False)
        self.high.weight = self.low.weight
        self.unused = nn.Parameter(torch.ones(2))
        self.head = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(self.low(torch.tanh(self.two(torch.tanh(self.one(x))))))
        return self.head(torch.tanh(self.high(hidden)))


def tied() -> tuple[Tied, Partition]:
    torch.manual_seed(0)
    module = Tied().double()
    return module, Partition.of(module, theta_a=["low.weight"], theta_h=["head.weight", "head.bias"])


def tiny_model(method: PEMethod, attention: str = "eager") -> PEModel:
    return shaken(with_heads(tiny(method, attention))).eval()


def batch(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.ones(2, 5, dtype=torch.long)
    mask[1, 3:] = 0
    labels = torch.randint(0, 3, (2, 5), generator=generator)
    labels[:, 0] = -100
    return {"input_ids": torch.randint(0, 30, (2, 5), generator=generator), "attention_mask": mask, "labels": labels}
