"""State dicts of other libraries, which OpenAI's CLIP class cannot load or would compute wrongly."""

from collections.abc import Mapping

from torch import Tensor

from mlcl_cli.errors import DataError

CONVERT = 'torch.save({k.removeprefix("module."): v for k, v in torch.load(FILE)["state_dict"].items()}, NEW)'
OPEN_CLIP = "Only if its open_clip config says quick_gelu: true (or it was tuned from OpenAI's weights)"
# A prefix of a name in a state dict, and the model it belongs to. OpenAI's has none of them.
FOREIGN_PREFIXES = {
    "text.": "an open_clip model with a custom text tower (CustomTextCLIP)",
    "visual.trunk.": "an open_clip model with an image tower from timm",
    "logit_bias": "a SigLIP model of open_clip",
    "text_decoder.": "a CoCa model of open_clip",
    "text_model.": "a Hugging Face transformers model",
    "vision_model.": "a Hugging Face transformers model",
    "clip.": "a CLIP within another model",
}
# open_clip's ViT-H splits its 1280 channels into heads of 80, OpenAI's class into heads of 64; shapes do not show it.
VIT_H_WIDTH = 1280
UNKNOWN_ACTIVATION = "its activation cannot be read from the file: OpenAI's quick GELU is assumed"


def require_openai_layout(content: Mapping[object, object], where: object) -> None:
    """Raise DataError, with the way to convert them, for weights known to be another library's."""
    if isinstance(content.get("state_dict"), Mapping):
        raise DataError(
            "is a training checkpoint as open_clip writes it, which does not record the activation",
            where=where,
            remedy=f"{OPEN_CLIP}, save its weights alone: {CONVERT}",
        )
    names = [name for name in content if isinstance(name, str)]
    if any(name.startswith("module.") for name in names):
        what = 'has the prefix "module." of distributed training, as open_clip\'s checkpoints do'
        remedy = f"{OPEN_CLIP}, save its weights without the prefix"
        raise DataError(what, where=where, remedy=remedy)
    for prefix, model in FOREIGN_PREFIXES.items():
        if any(name.startswith(prefix) for name in names):
            remedy = "Use one of OpenAI's models, or a state dict with the names of OpenAI's clip package"
            raise DataError(f"is {model}, not OpenAI's CLIP ({prefix}…)", where=where, remedy=remedy)
    conv = content.get("visual.conv1.weight")
    if isinstance(conv, Tensor) and "visual.proj" in content and conv.ndim == 4 and conv.shape[0] == VIT_H_WIDTH:
        what = "has the width of open_clip's ViT-H, whose attention heads OpenAI's CLIP does not have"
        raise DataError(what, where=where, remedy="Use one of OpenAI's models")
