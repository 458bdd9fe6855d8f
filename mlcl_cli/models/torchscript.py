"""Weights of a TorchScript archive, taken without running its code."""

import re
from collections.abc import Iterator

from torch import Tensor

from mlcl_cli.errors import DataError
from mlcl_cli.models.torch_files import Archive, ScriptObject

MAX_DEPTH = 32
MAX_OBJECTS = 100_000
CLASS = re.compile(
    r"^class (?P<name>\w+)\(Module\):\n"
    r"  __parameters__ = \[(?P<parameters>[^\]\n]*)\]\n"
    r"  __buffers__ = \[(?P<buffers>[^\]\n]*)\]$",
    re.MULTILINE,
)


def script_state(archive: Archive, root: ScriptObject) -> dict[str, Tensor]:
    """Parameters and buffers of a scripted or traced module by their state-dict names.

    Which attributes those are is read from the text of the module's classes. Raises ValueError where the tree of
    modules cannot be walked, and DataError where a class computes the plain GELU that OpenAI's CLIP does not have.
    """
    classes = _Classes(archive)
    state: dict[str, Tensor] = {}
    for count, (prefix, module) in enumerate(_modules(classes, root, "", 0)):
        if count > MAX_OBJECTS:
            raise ValueError("too many modules")
        for name in classes.tensors(module) or ():
            if isinstance(tensor := module.state.get(name), Tensor):
                state[prefix + name] = tensor
    return state


class _Classes:
    """What the archive's code says about its classes, each source file read once."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._known: dict[str, dict[str, list[str]]] = {}

    def tensors(self, module: ScriptObject) -> list[str] | None:
        """Names of a module's own parameters and buffers; None for what is not a module."""
        kind = module.kind
        if kind.module not in self._known:
            text = self._archive.code(f"code/{kind.module.replace('.', '/')}.py")
            if "torch.gelu(" in text:
                what = "computes plain GELU, and OpenAI's CLIP quick GELU: it would rank wrongly"
                raise DataError(what, where=self._archive.path, remedy="Use a model with quick GELU")
            self._known[kind.module] = {
                found["name"]: re.findall(r'"([^"]+)"', f"{found['parameters']} {found['buffers']}")
                for found in CLASS.finditer(text)
            }
        return self._known[kind.module].get(kind.name)


def _modules(classes: _Classes, module: ScriptObject, prefix: str, depth: int) -> Iterator[tuple[str, ScriptObject]]:
    if depth > MAX_DEPTH:
        raise ValueError("modules are nested too deep")
    yield prefix, module
    for name, value in module.state.items():
        if isinstance(value, ScriptObject) and classes.tensors(value) is not None:
            yield from _modules(classes, value, f"{prefix}{name}.", depth + 1)
