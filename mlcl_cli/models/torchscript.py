"""Weights of a TorchScript module, read without running its code."""

import re
from collections.abc import Iterable
from pathlib import Path

from torch import Tensor

from mlcl_cli.errors import DataError
from mlcl_cli.models.weights_unpickler import NotWeightsError, ScriptObject

MAX_ATTRIBUTES = 1_000_000
MAX_NAME = 1000
CLASS = re.compile(
    r"^class (\w+)\(Module\):\n"
    r"  __parameters__ = \[([^\]\n]*)\]\n"
    r"  __buffers__ = \[([^\]\n]*)\]$",
    re.MULTILINE,
)


def script_state(root: ScriptObject, sources: Iterable[tuple[str, str]], path: Path) -> dict[str, Tensor]:
    """Parameters and buffers of a scripted or traced module by their state-dict names.

    `sources`, the code of its classes by module, lists which attributes those are. Raises NotWeightsError if modules
    contain one another in a circle, and DataError if the code computes plain GELU, which OpenAI's CLIP does not use.
    """
    tensor_names: dict[tuple[str, str], list[str]] = {}
    for module, source in sources:
        if "torch.gelu(" in source:
            what = "computes plain GELU, but OpenAI's CLIP uses quick GELU: results would be wrong"
            raise DataError(what, where=path, remedy="Use a model with quick GELU")
        for name, parameters, buffers in CLASS.findall(source):
            tensor_names[module, name] = re.findall(r'"([^"]+)"', parameters + buffers)
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
