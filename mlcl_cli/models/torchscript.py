"""Weights of a TorchScript archive, read without running its code."""

import re
from collections.abc import Iterator

from torch import Tensor

from mlcl_cli.errors import DataError
from mlcl_cli.models.torch_archive import Archive
from mlcl_cli.models.weights_unpickler import NotWeightsError, ScriptObject

MAX_DEPTH = 32
MAX_MODULES = 100_000
CLASS = re.compile(
    r"^class (\w+)\(Module\):\n"
    r"  __parameters__ = \[([^\]\n]*)\]\n"
    r"  __buffers__ = \[([^\]\n]*)\]$",
    re.MULTILINE,
)


def script_state(archive: Archive, root: ScriptObject) -> dict[str, Tensor]:
    """Parameters and buffers of a scripted or traced module by their state-dict names.

    The source code of the module's classes lists which attributes those are. Raises NotWeightsError where modules are
    nested in a circle, and DataError where a class computes plain GELU, which OpenAI's CLIP does not use.
    """
    classes = _Classes(archive)
    state: dict[str, Tensor] = {}
    for count, (prefix, module) in enumerate(_modules(classes, root, "", 0)):
        if count > MAX_MODULES:
            raise NotWeightsError(f"more than {MAX_MODULES:,} modules")
        for name in classes.tensor_names(module) or ():
            if isinstance(tensor := module.attributes.get(name), Tensor):
                state[prefix + name] = tensor
    return state


class _Classes:
    """Names of parameters and buffers by class; each source file is read once."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._names: dict[str, dict[str, list[str]]] = {}

    def tensor_names(self, script_object: ScriptObject) -> list[str] | None:
        """A module's own parameters and buffers; None for an object that is not a module."""
        source = script_object.module
        if source not in self._names:
            text = self._archive.source(source)
            if "torch.gelu(" in text:
                what = "computes plain GELU, but OpenAI's CLIP uses quick GELU: results would be wrong"
                raise DataError(what, where=self._archive.path, remedy="Use a model with quick GELU")
            self._names[source] = {
                name: re.findall(r'"([^"]+)"', parameters + buffers)
                for name, parameters, buffers in CLASS.findall(text)
            }
        return self._names[source].get(script_object.name)


def _modules(classes: _Classes, module: ScriptObject, prefix: str, depth: int) -> Iterator[tuple[str, ScriptObject]]:
    if depth > MAX_DEPTH:
        raise NotWeightsError(f"modules are nested more than {MAX_DEPTH} deep")
    yield prefix, module
    for name, value in module.attributes.items():
        if isinstance(value, ScriptObject) and classes.tensor_names(value) is not None:
            yield from _modules(classes, value, f"{prefix}{name}.", depth + 1)
