"""Which state dicts are OpenAI's CLIP, and which are another library's that would rank wrongly or not load."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mlcl_cli.errors import DataError

ALONE = 'torch.save({k.removeprefix("module."): v for k, v in torch.load(FILE)["state_dict"].items()}, NEW)'
OPEN_CLIP = "Only if its open_clip config says quick_gelu: true (or it was tuned from OpenAI's weights)"
# A prefix or name in a state dict, and whose it is. OpenAI's has none of them.
FOREIGN = {
    "text.": "an open_clip model with a text tower of its own (CustomTextCLIP)",
    "visual.trunk.": "an open_clip model with an image tower of timm",
    "logit_bias": "a SigLIP model of open_clip",
    "text_decoder.": "a CoCa model of open_clip",
    "text_model.": "a Hugging Face transformers model",
    "vision_model.": "a Hugging Face transformers model",
    "clip.": "a CLIP inside another model",
}
# open_clip's ViT-H splits its 1280 channels into heads of 80; OpenAI's class takes 64, which shapes do not show.
VIT_H_WIDTH = 1280
UNKNOWN_ACTIVATION = "its activation cannot be read from the file: OpenAI's quick GELU is assumed"


def require_openai_layout(content: Mapping[Any, Any], where: object) -> None:
    """Raises DataError, with the way to convert it, for weights that are known to be another library's."""
    if isinstance(content.get("state_dict"), Mapping):
        raise DataError(
            "is a training checkpoint of open_clip or the like, which does not tell its activation",
            where=where,
            remedy=f"{OPEN_CLIP}, save its weights alone: {ALONE}",
        )
    names = [name for name in content if isinstance(name, str)]
    if any(name.startswith("module.") for name in names):
        what = 'has the prefix "module." of distributed training, as open_clip\'s checkpoints do'
        remedy = f"{OPEN_CLIP}, save its weights without the prefix"
        raise DataError(what, where=where, remedy=remedy)
    for sign, whose in FOREIGN.items():
        if any(name.startswith(sign) for name in names):
            remedy = "Use one of OpenAI's models, or a state dict with the names of OpenAI's clip package"
            raise DataError(f"holds {whose}, not OpenAI's CLIP ({sign}…)", where=where, remedy=remedy)
    first = content.get("visual.conv1.weight")
    if isinstance(first, Tensor) and "visual.proj" in content and first.ndim == 4 and first.shape[0] == VIT_H_WIDTH:
        what = "has the width of open_clip's ViT-H, whose attention heads OpenAI's CLIP does not have"
        raise DataError(what, where=where, remedy="Use one of OpenAI's models")
