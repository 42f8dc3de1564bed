"""Models whose parameters are in half precision, and the same models in float32."""

import copy

import torch
from architectures import backbone
from unroll import HEAD, episodes

from pemeta import PEModel
from pemeta.priming.algorithms import OuterStep
from pemeta.training.optimizer import LossScale, Optimization
from pemeta.utils.modules import only_trainable

HALF = [torch.bfloat16, torch.float16]


def half_model(method, architecture="bert", dtype=torch.bfloat16, attention="eager"):
    """A model on a backbone in half precision, with noise on θ_a, whose gradients often start at zero."""
    model = PEModel(backbone(architecture, attention).to(dtype), method)
    for task in ("en", "es"):
        model.add_head(task, HEAD)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name in model.partition().theta_a:
            parameter = model.get_parameter(name)
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def in_float32(model):
    """The same values, in float32."""
    return copy.deepcopy(model).float()


def outer_steps(model, algorithm, steps, architecture="bert", lr=1e-3):
    """Some outer steps on two episodes, without dropout."""
    drawn = episodes(architecture)
    with only_trainable(model, algorithm.trained(model)) as trained:
        scale = LossScale.suited_to(model.compute_dtype)
        optimization = Optimization(trained.values(), lr, steps, max_grad_norm=1.0, scale=scale)
        for number in range(steps):
            optimization.zero_grad()
            algorithm.accumulate(model, drawn, OuterStep(number, scale.value, optimization.optimizer))
            optimization.step()
    return optimization


def moved(before, model, names, dtype=None):
    """The share of the named parameters' entries that are no longer what they were, rounded if a type is given."""
    after = model.state(tuple(names))
    pairs = [(before[name].to(dtype), after[name].to(dtype)) for name in names]
    return sum(int((a != b).sum()) for a, b in pairs) / sum(a.numel() for a, _ in pairs)
