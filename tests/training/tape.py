"""A recorder without a GPU: writes down what torch does, and repeats that and nothing else.

As in a CUDA graph, Python is not run again: a number that was on the host stays what it was, and a
tensor that was there before is read and written in its place.
"""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map


class Tape(TorchDispatchMode):
    """What was done: functions, and where their arguments come from and their results go."""

    def __init__(self):
        super().__init__()
        self.lines = []
        self.made = {}  # id of a tensor that came up in the recording -> (its slot, the tensor)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        slots = tree_map(self._slot_of, (args, kwargs))
        results = function(*args, **kwargs)
        known = {id(leaf) for leaf in tree_flatten((args, kwargs))[0]}
        outputs = []
        for leaf in tree_flatten(results)[0]:
            fresh = isinstance(leaf, torch.Tensor) and id(leaf) not in known
            outputs.append(self._new_slot(leaf) if fresh else None)
        self.lines.append((function, slots, outputs))
        return results

    def _new_slot(self, tensor):
        self.made[id(tensor)] = (len(self.made), tensor)
        return len(self.made) - 1

    def _slot_of(self, leaf):
        if isinstance(leaf, torch.Tensor) and id(leaf) in self.made:
            return _Slot(self.made[id(leaf)][0])
        return leaf

    def play(self):
        values = {}
        with torch.no_grad():
            for function, slots, outputs in self.lines:
                args, kwargs = tree_map(
                    lambda leaf: values[leaf.number] if isinstance(leaf, _Slot) else leaf, slots
                )
                results = tree_flatten(function(*args, **kwargs))[0]
                for slot, result in zip(outputs, results, strict=True):
                    if slot is not None:
                        values[slot] = result


class _Slot:
    def __init__(self, number):
        self.number = number


class TapeRecorder:
    """Records on tapes; ``done`` lists what was done in which order."""

    def __init__(self):
        self.done = []

    def warm_up(self, work):
        self.done.append("warm up")
        work()

    def record(self, work):
        tape = Tape()
        with tape:
            work()
        self.done.append("record")
        new = True  # a tape cannot be recorded without the work being done: the first replay is it

        def replay():
            nonlocal new
            self.done.append("replay")
            if not new:
                tape.play()
            new = False

        return replay


class BrokenRecorder(TapeRecorder):
    """Cannot record."""

    def record(self, work):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")
