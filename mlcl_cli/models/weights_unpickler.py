"""A restricted unpickler: plain values, tensors and attributes of TorchScript objects; no code is ever executed.

`torch.load(weights_only=True)` refuses TorchScript, allocates what a file declares and hashes keys of any depth.
"""

import io
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

ALLOWED_OPCODES = (
    pickle.PROTO + pickle.FRAME + pickle.STOP + pickle.MARK + pickle.GLOBAL + pickle.STACK_GLOBAL + pickle.BINPERSID
    + pickle.NONE + pickle.NEWTRUE + pickle.NEWFALSE + pickle.BININT + pickle.BININT1 + pickle.BININT2
    + pickle.LONG1 + pickle.BINFLOAT + pickle.BINUNICODE + pickle.SHORT_BINUNICODE
    + pickle.EMPTY_TUPLE + pickle.TUPLE + pickle.TUPLE1 + pickle.TUPLE2 + pickle.TUPLE3
    + pickle.EMPTY_LIST + pickle.APPEND + pickle.APPENDS + pickle.EMPTY_DICT
    + pickle.BINPUT + pickle.LONG_BINPUT + pickle.MEMOIZE + pickle.BINGET + pickle.LONG_BINGET
)  # fmt: skip


class NotWeightsError(Exception):
    """The file asks for something other than tensors and plain values."""


@dataclass(slots=True, eq=False)
class ScriptObject:
    """An object of a TorchScript class, `kind` = (module, name): its attributes, without its code."""

    kind: tuple[str, str]
    attributes: dict[str, object] = field(default_factory=dict)


class WeightsUnpickler(pickle._Unpickler):
    """`storage` returns a flat tensor for a key, a dtype and a number of elements.

    Only `find_class` puts callables on the stack, so a pickle can call nothing but this module's own functions. `load`
    raises NotWeightsError for objects of other types, and anything else for a damaged file.
    """

    stack: list[object]
    pop_mark: Callable[[], list[object]]

    def __init__(self, pickled: bytearray, storage: Callable[[str, torch.dtype, int], Tensor]) -> None:
        super().__init__(io.BytesIO(pickled))
        self._storage = storage

    def find_class(self, module: str, name: str) -> object:
        """The dtype or function that stands for a global name. Nothing is imported."""
        if module.startswith("__torch__"):
            return lambda: ScriptObject((module, name))
        if module == "torch.jit._pickle":  # lists of numbers, and tags with a container's type
            return _first
        if (module, name) not in GLOBALS:
            raise NotWeightsError(f"{module}.{name}")
        return GLOBALS[module, name]

    def persistent_load(self, pid: object) -> Tensor:
        """The storage that a tensor refers to."""
        match pid:
            case ("storage", torch.dtype() as dtype, str(key), _, int(numel)):
                return self._storage(key, dtype, numel)
        raise ValueError("invalid storage reference")

    def _call(self) -> None:
        function, arguments = self.stack[-2:]
        if not callable(function) or not isinstance(arguments, tuple):
            raise TypeError("expected a function and its arguments")
        self.stack[-2:] = [function(*arguments)]

    def _build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, ScriptObject):
            if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
                raise NotWeightsError(f"class {target.kind[1]} restores itself with code")
            target.attributes |= state
        elif not isinstance(target, dict):  # a state dict has _metadata, which is ignored
            raise TypeError("expected a state dict or a module")

    def _update(self, items: list[object]) -> None:
        target = self.stack[-1]
        # Hashing nested tuples may take exponential time.
        if not isinstance(target, dict) or not all(isinstance(key, str | int) for key in items[::2]):
            raise TypeError("expected a dictionary with names or numbers as keys")
        target.update(zip(items[::2], items[1::2], strict=True))

    def _refuse(self) -> None:
        raise NotWeightsError("an object of another type")

    dispatch: ClassVar[dict[int, Callable[..., None]]] = {
        **dict.fromkeys(pickle._Unpickler.dispatch, _refuse),
        **{opcode: pickle._Unpickler.dispatch[opcode] for opcode in ALLOWED_OPCODES},
        pickle.REDUCE[0]: _call,
        pickle.NEWOBJ[0]: _call,
        pickle.BUILD[0]: _build,
        pickle.SETITEM[0]: lambda self: self._update([self.stack.pop(-2), self.stack.pop()]),
        pickle.SETITEMS[0]: lambda self: self._update(self.pop_mark()),
    }


def _first(value: object, *_: object) -> object:
    return value


def _tensor(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object) -> Tensor:
    """A view of `storage`. Torch raises where it leaves the storage; having more elements than it raises, too."""
    view = storage.as_strided(size, stride, offset)
    if view.numel() > storage.numel():
        raise ValueError("a tensor has more elements than its storage")
    return view


GLOBALS: dict[tuple[str, str], object] = {
    ("torch", "DoubleStorage"): torch.float64,
    ("torch", "FloatStorage"): torch.float32,
    ("torch", "HalfStorage"): torch.float16,
    ("torch", "BFloat16Storage"): torch.bfloat16,
    ("torch", "LongStorage"): torch.int64,
    ("torch", "IntStorage"): torch.int32,
    ("torch", "ShortStorage"): torch.int16,
    ("torch", "CharStorage"): torch.int8,
    ("torch", "ByteStorage"): torch.uint8,
    ("torch", "BoolStorage"): torch.bool,
    ("torch", "Size"): _first,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _first,
    ("collections", "OrderedDict"): dict,
}
