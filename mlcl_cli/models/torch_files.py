"""`.pt` files read as data: nothing in them is executed, and nothing larger than the file itself is allocated.

Both `torch.save` and TorchScript write a zip archive: a pickle (`data.pkl`) whose tensors refer to raw storages
(`data/0`, `data/1`, …); TorchScript adds source code.
"""

import io
import pickle
import re
import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, TypeAlias, cast

import torch
from torch import Tensor

from mlcl_cli.errors import DataError

MAX_PICKLE = 4 * 2**20  # ten times a CLIP with its optimizer's state; read in a second or two
MAX_SOURCE = 4 * 2**20
CONVERT = "Only plain weights are read. If you trust the file, save its state dict alone"
CONVERT_SCRIPT = "If you trust the file, convert it: torch.save(torch.jit.load(FILE).state_dict(), NEW)"
MAX_ATTRIBUTES = 1_000_000
MAX_NAME = 1000
Kind: TypeAlias = tuple[str, str]  # module and name of a TorchScript class
CLASS = re.compile(
    r"^class (\w+)\(Module\):\n"
    r"  __parameters__ = \[([^\]\n]*)\]\n"
    r"  __buffers__ = \[([^\]\n]*)\]$",
    re.MULTILINE,
)


def read_torch_file(path: Path) -> object:
    """Plain values and tensors that `torch.save` wrote; of a TorchScript archive, its state dict.

    Nothing in the file is executed. Raises DataError for a file that is missing, damaged, or contains anything else.
    """
    if not path.is_file():
        what = "is not a file" if path.exists() else "does not exist"
        raise DataError(what, where=path, remedy="Use the path of a checkpoint file")
    try:
        with zipfile.ZipFile(path) as file:
            return _Archive(file, path).content()
    except DataError:
        raise
    except Exception as error:  # a damaged or hostile archive may fail anywhere in zipfile, pickle or torch
        with path.open("rb") as head:
            legacy_head = pickle.dumps(torch.serialization.MAGIC_NUMBER, protocol=2)
            is_legacy = head.read(len(legacy_head)) == legacy_head
        if is_legacy:
            remedy = "Convert it: torch.save(torch.load(FILE, weights_only=True), NEW)"
            raise DataError("is in the format of torch before 1.6", where=path, remedy=remedy) from error
        raise DataError("is not a checkpoint, or is damaged", where=path, remedy="Download or copy it again") from error


class _Archive:
    """The entries of a `.pt` file; every size is checked before anything is read."""

    def __init__(self, file: zipfile.ZipFile, path: Path) -> None:
        self._file, self._path = file, path
        entries = file.infolist()
        self._entries = {entry.filename: entry for entry in entries}
        stored = [entry.file_size for entry in entries if entry.compress_type == zipfile.ZIP_STORED]
        if len(self._entries) != len(entries) or sum(stored) > path.stat().st_size:
            raise ValueError("entries have the same name, or overlap")
        pickles = [name for name in self._entries if name.count("/") == 1 and name.endswith("/data.pkl")]
        (self._root,) = (name.removesuffix("data.pkl") for name in pickles)
        self._storages: dict[str, bytearray] = {}
        if self._has("byteorder") and self._read("byteorder") != sys.byteorder.encode():
            raise ValueError("byte order differs from this machine's")

    def content(self) -> object:
        """The unpickled content, or the state dict of a TorchScript module."""
        try:
            content = WeightsUnpickler(self._read("data.pkl", MAX_PICKLE), self._storage).load()
            if isinstance(content, ScriptObject):
                return _script_state(content, self._tensor_names())
            return content
        except NotWeightsError as error:
            remedy = CONVERT_SCRIPT if self._has("constants.pkl") else CONVERT
            raise DataError(f"contains more than weights ({error})", where=self._path, remedy=remedy) from error

    def _storage(self, key: str, dtype: torch.dtype, numel: int) -> Tensor:
        """The first `numel` elements of a storage, flat. Tensors of one storage share its memory."""
        if key not in self._storages:
            self._storages[key] = self._read(f"data/{key}")
        content = self._storages[key]
        if not 0 <= numel * dtype.itemsize <= len(content):
            raise ValueError(f"storage {key} is shorter than declared")
        return torch.frombuffer(content, dtype=dtype, count=numel) if numel else torch.empty(0, dtype=dtype)

    def _tensor_names(self) -> dict[Kind, list[str]]:
        """Parameters and buffers of each TorchScript class, as its source code lists them.

        Raises DataError if the code computes plain GELU, which OpenAI's CLIP does not use.
        """
        names: dict[Kind, list[str]] = {}
        remaining, folder = MAX_SOURCE, f"{self._root}code/"
        for path in (path for path in self._entries if path.startswith(folder) and path.endswith(".py")):
            with self._file.open(path) as file:
                content = file.read(remaining + 1)
            remaining -= len(content)
            if remaining < 0:
                raise ValueError("too much source code")
            source, module = content.decode(), path.removeprefix(folder).removesuffix(".py").replace("/", ".")
            if "torch.gelu(" in source:
                what = "computes plain GELU, but OpenAI's CLIP uses quick GELU: results would be wrong"
                raise DataError(what, where=self._path, remedy="Use a model with quick GELU")
            for name, parameters, buffers in CLASS.findall(source):
                names[module, name] = re.findall(r'"([^"]+)"', parameters + buffers)
        return names

    def _has(self, name: str) -> bool:
        return self._root + name in self._entries

    def _read(self, name: str, limit: int | None = None) -> bytearray:
        """An uncompressed entry of at most `limit` bytes, checked against its CRC."""
        entry = self._entries[self._root + name]
        if entry.compress_type != zipfile.ZIP_STORED or (limit is not None and entry.file_size > limit):
            raise ValueError(f"{name} is compressed or too large")
        content = bytearray(entry.file_size)
        with self._file.open(entry) as file:
            # zipfile compares the CRC at the end of the entry, which the last read reaches.
            if cast("io.BufferedIOBase", file).readinto(content) != len(content) or file.read(1):
                raise ValueError(f"{name} is truncated")
        return content


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
    """The attributes of an object of a TorchScript class, without its code."""

    kind: Kind
    attributes: dict[str, object] = field(default_factory=dict)


class WeightsUnpickler(pickle._Unpickler):
    """A restricted unpickler; `storage` returns a flat tensor for a key, a dtype and a number of elements.

    `torch.load(weights_only=True)` refuses TorchScript, allocates what a file declares and hashes keys of any depth.
    Only `find_class` puts callables on the stack, so a pickle can call only functions of this module. `load`
    raises NotWeightsError for objects of other types, and anything else for a damaged file.
    """

    stack: list[object]
    pop_mark: Callable[[], list[object]]

    def __init__(self, pickled: bytearray, storage: Callable[[str, torch.dtype, int], Tensor]) -> None:
        super().__init__(io.BytesIO(pickled))
        self._storage = storage

    def find_class(self, module: str, name: str) -> object:
        """The dtype or function for a global name. Nothing is imported."""
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


def _script_state(root: ScriptObject, tensor_names: Mapping[Kind, list[str]]) -> dict[str, Tensor]:
    """Parameters and buffers of a scripted or traced module by their state-dict names.

    Raises NotWeightsError if modules contain one another in a circle.
    """
    state: dict[str, Tensor] = {}
    pending, count = [("", root)], 0
    while pending:
        prefix, owner = pending.pop()
        count += 1 + len(owner.attributes)
        if count > MAX_ATTRIBUTES or len(prefix) > MAX_NAME:
            raise NotWeightsError("too many modules")
        for name in tensor_names.get(owner.kind, ()):
            if isinstance(tensor := owner.attributes.get(name), Tensor):
                state[prefix + name] = tensor
        for name, child in owner.attributes.items():
            if isinstance(child, ScriptObject) and child.kind in tensor_names:
                pending.append((f"{prefix}{name}.", child))
    return state
