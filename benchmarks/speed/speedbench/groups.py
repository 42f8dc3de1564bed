"""What a full and a quick run measure."""

from __future__ import annotations

from dataclasses import replace

from speedbench.cases import Case, Group, Race, each

IN_LAYER = ("houlsby", "lora", "prefix", "bitfit")
TOP_LAYERS = ("houlsby, top 3", "lora, top 3", "prefix, top 3")
STEPS = (1, 2, 5, 10, 20)
TASKS = (1, 2, 4, 8, 16)
RIVALS = "pemeta, hand-written, torchopt, higher, maml"
REAL_RIVALS = "pemeta, hand-written, torchopt"
REUSED_EPOCHS, COMPARED_EPOCHS = 61, 4
TRIALS = 4
"""Steps in which packed passes have met most sizes of sentences and rows."""


def full() -> tuple[Group, ...]:
    """Everything: about 70 minutes on two cores."""
    return (
        Group("start-up", "Start-up", (_start_up(5),)),
        Group("epochs", "Fine-tuning epochs after the first, MiniLM", (_epochs(3),)),
        Group("main", "Adapter at the output, 2 tasks, S = 5", _main()),
        Group("in-layer", "Methods in all layers, 2 tasks, S = 5", _in_layer()),
        Group("top-layers", "Methods in the top 3 layers, 2 tasks, S = 5", _top_layers("mBERT", 4)),
        Group("real", "On real sentences (WikiAnn en and es), 2 tasks, S = 5", _real()),
        Group("real-epochs", "Fine-tuning and evaluation on real sentences (WikiAnn nl)", _real_epochs()),
        Group("memory", "Memory, against plain fine-tuning on the same query sets", _memory()),
        Group("growth-steps", "Growth with inner steps, MiniLM, 2 tasks", _growth_steps()),
        Group("growth-tasks", "Growth with tasks, adapter at the output, S = 5", _growth_tasks()),
        Group("growth-theta", "Growth with θ_p, adapter at the output, 2 tasks, S = 5", _growth_theta()),
    )


def quick() -> tuple[Group, ...]:
    """The targets' lines on the MiniLM shape, in a few minutes."""
    adapter = Case("pemeta")
    first = (*each(adapter, "floor, pemeta, hand-written, maml"), adapter.on(first_order=False))
    methods = tuple(
        Race(f"MiniLM, {m}", tuple(each(adapter.on(method=m), "pemeta, hand-written, floor")), 3) for m in IN_LAYER
    )
    return (
        Group("start-up", "Start-up", (_start_up(5),)),
        Group("epochs", "Fine-tuning epochs after the first, MiniLM", (_epochs(1),)),
        Group("main", "Adapter at the output, 2 tasks, S = 5", (Race("MiniLM", first, 5),)),
        Group("in-layer", "Methods in all layers, 2 tasks, S = 5", methods),
        Group("top-layers", "Methods in the top 3 layers", _top_layers("MiniLM-L12", 3)),
        Group("memory", "Memory, against plain fine-tuning on the same query sets", _memory(("MiniLM",), 2)[:1]),
        Group("real", "On real sentences", (_real_race("MiniLM", "adapter", 16, 3),)),
        Group("growth-tasks", "Growth with tasks", (_whole_steps("MiniLM", 2),)),
    )


def with_rounds(group: Group, rounds: int) -> Group:
    """The group with another number of rounds in each race."""
    return replace(group, races=tuple(replace(race, rounds=rounds) for race in group.races))


def _main() -> tuple[Race, ...]:
    races = []
    for shape, rounds, rounds_second, gib in (("MiniLM", 10, 5, 6), ("mBERT", 8, 1, 14)):
        case = Case("pemeta", shape)
        second = case.on(first_order=False)
        first = (*each(case, f"floor, fine-tuning, {RIVALS}"), second)
        races.append(Race(shape, first, rounds, gib))
        races.append(Race(f"{shape}, second order", tuple(each(second, RIVALS)), rounds_second, gib + 4))
    return tuple(races)


def _in_layer() -> tuple[Race, ...]:
    races = []
    for shape, rounds in (("MiniLM", 6), ("mBERT", 3)):
        for method in IN_LAYER:
            case = Case("pemeta", shape, method)
            cases = tuple(each(case, "pemeta, hand-written, floor"))
            races.append(Race(f"{shape}, {method}", cases, rounds, 8))
    for method in IN_LAYER:
        case = Case("pemeta", "MiniLM", method, first_order=False)
        races.append(Race(f"MiniLM, {method}, second order", tuple(each(case, "pemeta, hand-written")), 3, 8))
    return tuple(races)


def _top_layers(shape: str, rounds: int) -> tuple[Race, ...]:
    return tuple(
        Race(f"{shape}, {method}", tuple(each(Case("pemeta", shape, method), "pemeta, hand-written")), rounds, 6)
        for method in TOP_LAYERS
    )


def _real() -> tuple[Race, ...]:
    """Fewer rounds where a step takes long."""
    sizes = [("MiniLM", 8, 6), ("MiniLM", 16, 6), ("mBERT", 16, 3)]
    races = [
        _real_race(shape, method, size, rounds) for shape, size, rounds in sizes for method in ("adapter", *IN_LAYER)
    ]
    return (*races, _real_race("mBERT", "adapter", 8, 3))


def _real_race(shape: str, method: str, sentences: int, rounds: int) -> Race:
    """pemeta packed and padded, its peers, which are padded, and for the adapter the floors."""
    case = Case("pemeta", shape, method, sentences=sentences, data="wikiann")
    cases = [case.on(padding="packed"), *each(case, REAL_RIVALS)]
    if method == "adapter":
        cases += [case.on(contender=name) for name in ("maml", "floor", "floor, tokens only")]
    return Race(f"{shape}, {method}, {sentences} + {sentences}", tuple(cases), rounds, 14, TRIALS)


def _real_epochs() -> tuple[Race, ...]:
    races = []
    for what, method, rounds in (("epochs, real", "lora", 5), ("evaluation, real", "lora", 5)):
        padded = Case(what, method=method, data="wikiann", epochs=int(what == "epochs, real"))
        cases = [padded.on(padding="packed"), padded]
        cases += [padded.on(bucket_by_length=True)] if padded.epochs else []
        races.append(Race(f"MiniLM, {what.partition(',')[0]}", tuple(cases), rounds, 4))
    return tuple(races)


def _growth_steps() -> tuple[Race, ...]:
    return tuple(
        Race(
            f"MiniLM, {method}, S={steps}",
            tuple(each(Case("pemeta", method=method, inner_steps=steps), "pemeta, hand-written, maml")),
            4,
            4,
        )
        for method in ("adapter", "lora")
        for steps in STEPS
    )


def _growth_tasks() -> tuple[Race, ...]:
    small = [Case("pemeta", tasks=count) for count in TASKS]
    batched = [case.on(batch_tasks=True) for case in small]
    rival = [case.on(contender="hand-written") for case in small]
    large = tuple(case.on(shape="mBERT") for case in small)
    return (
        Race("MiniLM", (*small, *batched, *rival), 2, 12),
        Race("mBERT", large, 1, 10),
        *(_whole_steps(shape, 2) for shape in ("MiniLM", "mBERT")),
    )


def _whole_steps(shape: str, rounds: int) -> Race:
    """With the optimiser's step, whose peak is the same whatever the number of tasks."""
    cases = tuple(Case("pemeta", shape, tasks=count, optimizer=True) for count in (1, 16))
    return Race(f"{shape}, with AdamW", cases, rounds, 12)


def _growth_theta() -> tuple[Race, ...]:
    cases = "pemeta, hand-written, floor, maml"
    large = Case("pemeta", "XLM-R large")
    return (
        Race("MiniLM", tuple(each(Case("pemeta"), cases)), 5, 4),
        Race("mBERT", tuple(each(Case("pemeta", "mBERT"), cases)), 2, 10),
        # MAML's copies leave no room for others that wait, nor on a small machine for itself.
        Race("XLM-R large", tuple(each(large, "pemeta, hand-written, floor")), 2, 16),
        Race("XLM-R large, maml", tuple(each(large, "pemeta, maml")), 1, 20),
    )


def _memory(shapes: tuple[str, ...] = ("MiniLM", "mBERT"), rounds: int = 3) -> tuple[Race, ...]:
    races = []
    for shape in shapes:
        for optimizer in (False, True):
            cases = [
                Case(contender, shape, tasks=tasks, optimizer=optimizer)
                for tasks in (1, 2)
                for contender in ("fine-tuning", "pemeta")
            ]
            races.append(Race(f"{shape}, with AdamW" if optimizer else shape, tuple(cases), rounds, 14))
    return tuple(races)


def _epochs(rounds: int) -> Race:
    reuse, recompute = Case("epochs, reuse"), Case("epochs, recompute")
    cases = [reuse.on(epochs=n) for n in (1, COMPARED_EPOCHS, REUSED_EPOCHS)]
    cases += [recompute.on(epochs=n) for n in (1, COMPARED_EPOCHS)]
    return Race("MiniLM", tuple(cases), rounds, 4)


def _start_up(rounds: int) -> Race:
    return Race(
        "start-up", tuple(Case(what, method="") for what in ("python", "import pemeta", "pemeta --help")), rounds
    )
