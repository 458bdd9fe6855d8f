"""`.pt` files read as data: nothing in them is executed, and nothing larger than the file itself is allocated.

Both `torch.save` and TorchScript write a zip archive: a pickle (`data.pkl`) whose tensors refer to raw storages
(`data/0`, `data/1`, …). The pickle is interpreted here instead of being loaded: it can build plain values and tensors,
and there is nothing in this file that it could call.
"""

import math
import pickletools
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BufferedIOBase
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from mlcl_cli.errors import DataError

MAX_ENTRIES = 100_000
MAX_PICKLE = 8 * 2**20
MAX_STEPS = 1_000_000  # a second or two; a CLIP with its optimizer's state takes a tenth of it
MAX_CODE = 4 * 2**20
DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
CONVERT = "Only plain weights are read. Where you trust the file, save its state dict alone"
CONVERT_SCRIPT = "Where you trust the file, convert it: torch.save(torch.jit.load(FILE).state_dict(), NEW)"
_MARK = object()


class MoreThanWeights(Exception):  # noqa: N818
    """The file asks for something other than tensors and plain values."""


@dataclass(frozen=True, slots=True)
class Global:
    """A name that a pickle refers to. It is never imported."""

    module: str
    name: str


@dataclass(slots=True, eq=False)
class ScriptObject:
    """An object of a TorchScript class: what it stores, without its code."""

    kind: Global
    state: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Storage:
    """Raw bytes and how to read them."""

    content: bytearray
    dtype: torch.dtype
    numel: int


class Archive:
    """The zip archive of a `.pt` file, with every size checked before anything is read."""

    def __init__(self, file: zipfile.ZipFile, path: Path) -> None:
        entries = file.infolist()
        if len(entries) > MAX_ENTRIES:
            raise ValueError(f"more than {MAX_ENTRIES:,} entries")
        self._file, self._size = file, path.stat().st_size
        self.path = path
        self._entries = {entry.filename: entry for entry in entries}
        if len(self._entries) != len(entries):
            raise ValueError("an entry appears twice")
        roots = [name.removesuffix("data.pkl") for name in self._entries if name.count("/") == 1]
        roots = [root for root in roots if f"{root}data.pkl" in self._entries and root.endswith("/")]
        if len(set(roots)) != 1:
            raise ValueError("data.pkl is missing")
        self._root = roots[0]
        self._storages: dict[str, bytearray] = {}
        order = self.stored("byteorder") if self.has("byteorder") else b"little"
        if order != sys.byteorder.encode():
            raise ValueError("its byte order is not this machine's")

    @property
    def is_script(self) -> bool:
        """Whether TorchScript wrote it."""
        return self.has("constants.pkl")

    def has(self, name: str) -> bool:
        """Whether there is an entry."""
        return self._root + name in self._entries

    def stored(self, name: str, limit: int | None = None) -> bytearray:
        """An uncompressed entry, checked against its CRC. Raises ValueError if it is compressed or over `limit`."""
        entry = self._entries[self._root + name]
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            raise ValueError(f"{name} is compressed")
        if entry.file_size > (self._size if limit is None else limit):
            raise ValueError(f"{name} is too large")
        content = bytearray(entry.file_size)
        with self._file.open(entry) as file:
            if cast("BufferedIOBase", file).readinto(content) != len(content) or file.read(1):
                raise ValueError(f"{name} is truncated")
        return content

    def code(self, name: str) -> str:
        """A source file of TorchScript, or the empty string."""
        if not self.has(name):
            return ""
        with self._file.open(self._entries[self._root + name]) as file:
            content = file.read(MAX_CODE + 1)
        if len(content) > MAX_CODE:
            raise ValueError(f"{name} is too large")
        return content.decode()

    def storage(self, key: str, dtype: torch.dtype, numel: int) -> Storage:
        """Storage `data/<key>`. Raises ValueError where it is smaller than the pickle says, or the sum too large."""
        if key not in self._storages:
            left = self._size - sum(map(len, self._storages.values()))
            self._storages[key] = self.stored(f"data/{key}", left)
        content = self._storages[key]
        if numel < 0 or numel * dtype.itemsize > len(content):
            raise ValueError(f"storage {key} is smaller than declared")
        return Storage(content, dtype, numel)


def read_archive(path: Path, convert: Callable[[Archive, Any], Any]) -> Any:
    """`convert(archive, content)` of a `.pt` file, where `content` holds plain values, tensors and ScriptObjects.

    Raises DataError for a file that is missing, damaged, or asks for anything else.
    """
    if not path.is_file():
        there = "is not a file" if path.exists() else "does not exist"
        raise DataError(there, where=path, remedy="Give the path of a checkpoint")
    try:
        with zipfile.ZipFile(path) as file:
            archive = Archive(file, path)
            try:
                return convert(archive, _Interpreter(archive).run(bytes(archive.stored("data.pkl", MAX_PICKLE))))
            except MoreThanWeights as error:
                remedy = CONVERT_SCRIPT if archive.is_script else CONVERT
                raise DataError(f"holds more than weights ({error})", where=path, remedy=remedy) from error
    except DataError:
        raise
    except Exception as error:  # a damaged or hostile archive may fail anywhere in zipfile, pickletools or torch
        if _is_legacy(path):
            remedy = "Convert it: torch.save(torch.load(FILE, weights_only=True), NEW)"
            raise DataError("is in the format of torch before 1.6", where=path, remedy=remedy) from error
        raise DataError("is not a checkpoint, or is damaged", where=path, remedy="Download or copy it again") from error


def _is_legacy(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(16)
    return head[:1] == b"\x80" and b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19" in head


class _Interpreter:
    """Builds plain values from the opcodes that torch's two picklers write; any other opcode is an error."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self, pickled: bytes) -> Any:
        """The value that the pickle describes."""
        for steps, (opcode, argument, _) in enumerate(pickletools.genops(pickled)):
            if steps > MAX_STEPS:
                raise ValueError("too long a pickle")
            if opcode.name == "STOP":
                (value,) = self._stack
                return value
            self._step(opcode.name, argument)
        raise EOFError

    def _step(self, name: str, argument: Any) -> None:
        stack = self._stack
        if name in _CONSTANTS:
            stack.append(_CONSTANTS[name]())
        elif name in _LITERALS:
            stack.append(argument)
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            self._memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(self._memo[argument])
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            module, attribute = argument.split(" ", 1) if name == "GLOBAL" else self._pop(2)
            stack.append(Global(_typed(module, str), _typed(attribute, str)))
        elif name.startswith("TUPLE"):
            stack.append(tuple(self._pop(int(name[5:])) if name[5:] else self._to_mark()))
        elif name in ("APPEND", "APPENDS"):
            values = self._pop(1) if name == "APPEND" else self._to_mark()
            _typed(stack[-1], list).extend(values)
        elif name in ("SETITEM", "SETITEMS"):
            values = self._pop(2) if name == "SETITEM" else self._to_mark()
            self._set(_typed(stack[-1], dict), values)
        elif name in ("REDUCE", "NEWOBJ", "BUILD"):
            first, second = self._pop(2)
            stack.append({"REDUCE": self._reduce, "NEWOBJ": _new, "BUILD": _build}[name](first, second))
        elif name == "BINPERSID":
            (reference,) = self._pop(1)
            stack.append(self._storage(reference))
        elif name not in ("PROTO", "FRAME"):
            raise MoreThanWeights(f"opcode {name}")

    def _pop(self, count: int) -> list[Any]:
        values = self._stack[-count:]
        if len(values) < count or any(value is _MARK for value in values):
            raise ValueError("stack underflow")
        del self._stack[-count:]
        return values

    def _to_mark(self) -> list[Any]:
        place = len(self._stack) - 1
        while self._stack[place] is not _MARK:
            place -= 1
            if place < 0:
                raise ValueError("no mark")
        values = self._stack[place + 1 :]
        del self._stack[place:]
        return values

    def _set(self, target: dict[Any, Any], values: list[Any]) -> None:
        if len(values) % 2:
            raise ValueError("a key without a value")
        for key, value in zip(values[::2], values[1::2], strict=True):
            # Tuples of tuples of tuples take exponential time to hash.
            target[_typed(key, str, int)] = value

    def _storage(self, reference: Any) -> Storage:
        word, kind, key, _location, numel = reference
        if word != "storage" or kind.module != "torch" or kind.name not in DTYPES:
            raise MoreThanWeights(f"a storage of type {kind.module}.{kind.name}")
        return self._archive.storage(_typed(key, str), DTYPES[kind.name], _typed(numel, int))

    def _reduce(self, function: Any, arguments: Any) -> Any:
        called, given = _typed(function, Global), _typed(arguments, tuple)
        match called.module, called.name:
            case "collections", "OrderedDict" if not given:
                return {}
            case "torch._utils", "_rebuild_tensor_v2":
                return _tensor(*given[:4])
            case "torch._utils", "_rebuild_parameter":
                return _typed(given[0], Tensor)
            case "torch", "Size":
                return _typed(given[0], tuple)
            case "torch.jit._pickle", _:  # lists of numbers, and tags that tell a container's type
                return given[0]
        raise MoreThanWeights(f"{called.module}.{called.name}")


_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "MARK": lambda: _MARK,
}
_LITERALS = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE"}


def _typed(value: Any, *kinds: type) -> Any:
    if not isinstance(value, kinds):
        raise TypeError(f"expected {kinds[0].__name__}, got {type(value).__name__}")
    return value


def _new(kind: Any, arguments: Any) -> ScriptObject:
    if arguments != () or not _typed(kind, Global).module.startswith("__torch__"):
        raise MoreThanWeights(f"an object of class {kind.module}.{kind.name}")
    return ScriptObject(kind)


def _build(target: Any, state: Any) -> Any:
    if isinstance(target, ScriptObject):
        if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
            raise MoreThanWeights(f"class {target.kind.name} restores itself with code")
        target.state |= state
    else:
        _typed(target, dict)  # the _metadata of a state dict
    return target


def _tensor(storage: Any, offset: Any, size: Any, stride: Any) -> Tensor:
    """A view of `storage`. Raises ValueError where it leaves the storage, or holds more elements than it."""
    known: Storage = _typed(storage, Storage)
    numbers = [offset, *_typed(size, tuple), *_typed(stride, tuple)]
    if any(type(number) is not int or number < 0 for number in numbers) or len(size) != len(stride):
        raise ValueError("bad size, stride or offset")
    numel = math.prod(size)
    if numel == 0:
        return torch.empty(size, dtype=known.dtype)
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    if last >= known.numel or numel > known.numel:
        raise ValueError("a tensor exceeds its storage")
    flat = torch.frombuffer(known.content, dtype=known.dtype, count=known.numel)
    return flat.as_strided(size, stride, offset)
