"""Counting what a step asks of a device: operations, and reads by the host, which would wait for it."""

import traceback
import weakref
from collections import Counter

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten
WAITS = {aten._local_scalar_dense, aten.nonzero, aten.equal, aten.masked_select, aten.is_nonzero}
"""Operations whose result, or its size, the host needs before it can go on."""
VIEWS = {
    "view",
    "_unsafe_view",
    "t",
    "transpose",
    "unsqueeze",
    "squeeze",
    "expand",
    "select",
    "slice",
    "detach",
    "alias",
}


class Operations(TorchDispatchMode):
    """Counts, within the block, operations by name, and the lines that read what a device would hold.

    Everything is on the CPU. What a device would hold are the parameters, what a model has placed there, and all that
    is computed from it; the rest, such as a batch before it is moved, is the host's, which waits for nothing to read.

    Attributes:
        names: operations by name.
        reads: reads by the host, by the line that reads.
    """

    def __init__(self, model):
        super().__init__()
        self.names, self.reads = Counter(), Counter()
        self._there = {}  # storages that a device would hold
        self._model = model
        self._functions = _Lists(self)

    def __enter__(self):
        self._there.clear()
        for value in (*self._model.parameters(), *self._model.buffers()):
            self.hold(value)
        placed = self._model.placed

        def watched(batch):
            found = placed(batch)
            for value in found.values():
                self.hold(value)
            return found

        self._model.placed = watched
        self._functions.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self._functions.__exit__(*error)
        del self._model.placed

    def hold(self, tensor):
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._there:
            self._there[key] = weakref.finalize(storage, self._there.pop, key, None)

    def holds(self, *values):
        dense = [v for v in tree_leaves(values) if isinstance(v, Tensor) and v.layout is torch.strided]
        return any(value.untyped_storage()._cdata in self._there for value in dense)

    def note_read(self):
        frames = [f for f in traceback.extract_stack() if "/torch/" not in f.filename and f.filename != __file__]
        self.reads[f"{'/'.join(frames[-1].filename.split('/')[-3:])}:{frames[-1].lineno}"] += 1

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        there = self.holds(args, kwargs)
        if there and (func._overloadpacket in WAITS or _by_mask(func, args)):
            self.note_read()
        out = func(*args, **kwargs)
        self.names[func._overloadpacket.__name__] += 1
        if there:
            for value in tree_leaves(out):
                if isinstance(value, Tensor) and value.layout is torch.strided:
                    self.hold(value)
        return out

    @property
    def kernels(self):
        """All operations but views, which ask nothing of a device."""
        return sum(count for name, count in self.names.items() if name not in VIEWS)


class _Lists(TorchFunctionMode):
    """``tolist`` and ``numpy`` read a tensor of the CPU without an operation."""

    def __init__(self, operations):
        self._operations = operations

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if getattr(func, "__name__", "") in ("tolist", "numpy") and self._operations.holds(args):
            self._operations.note_read()
        return func(*args, **(kwargs or {}))


def _by_mask(func, args):
    return func is aten.index.Tensor and any(i is not None and i.dtype is torch.bool for i in args[1])
