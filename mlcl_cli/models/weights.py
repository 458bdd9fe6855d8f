"""OpenAI's CLIP from files, state dicts that it cannot load, and fingerprints of weights."""

import hashlib
import importlib
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from urllib.error import URLError

import torch
from torch import Tensor, nn

from mlcl_cli.errors import DataError, MachineError
from mlcl_cli.models.torch_files import read_torch_file

State = Mapping[str, Tensor]
NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size")  # OpenAI's archives list them beside the weights
# Limits on files from elsewhere, far above any CLIP: RN50x64 has 1,000 tensors and a context of 77 tokens.
MAX_CONTEXT = 4096
MAX_TENSORS = 10_000
MAX_SHARING = 8  # names per tensor, on average
DOWNLOADS = Path("~/.cache/clip")
CONVERT = 'torch.save({k.removeprefix("module."): v for k, v in torch.load(FILE)["state_dict"].items()}, NEW)'
OPEN_CLIP = "Only if its open_clip config says quick_gelu: true (or it was tuned from OpenAI's weights)"
# Prefixes of names in state dicts of other models than OpenAI's.
FOREIGN_PREFIXES = {
    "text.": "an open_clip model with a custom text tower (CustomTextCLIP)",
    "visual.trunk.": "an open_clip model with an image tower from timm",
    "logit_bias": "a SigLIP model of open_clip",
    "text_decoder.": "a CoCa model of open_clip",
    "text_model.": "a Hugging Face transformers model",
    "vision_model.": "a Hugging Face transformers model",
    "clip.": "a CLIP within another model",
}
UNKNOWN_ACTIVATION = "does not record its activation function; assuming OpenAI's quick GELU"


def fingerprint(state: State, names: Iterable[str] | None = None) -> str:
    """Sixteen hex digits that identify these weights: names, shapes and fp32 values, in any order."""
    digest = hashlib.sha256()
    for name in sorted(state if names is None else names):
        tensor = state[name].detach().cpu().float().contiguous()
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().data)
    return digest.hexdigest()[:16]


def load_clip(model: str | Path) -> nn.Module:
    """OpenAI's CLIP class with the weights of `model` in fp32, on the CPU, in eval mode.

    `model` is one of OpenAI's names (downloaded once to ~/.cache/clip, its checksum verified) or a file in OpenAI's
    format: a TorchScript archive or a plain state dict. TorchScript executes what it loads, so it loads only OpenAI's
    own archives, recognized by SHA-256; from any other file only tensors are read. Raises DataError, or MachineError
    without a network.
    """
    path = model if isinstance(model, Path) else _download(model)
    if is_official(path):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*torch.jit.load", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            archive: nn.Module = torch.jit.load(str(path), map_location="cpu")
        return build_clip(archive.state_dict(), path)
    content = read_torch_file(path)
    if not isinstance(content, dict) or not content:
        raise DataError("contains no CLIP weights", where=path, remedy="Set clip.model to a file in OpenAI's format")
    if isinstance(content.get("CLIP"), dict):
        raise DataError("is a tuned CLIP", where=path, remedy="Set clip.checkpoint to it, and clip.model to its base")
    require_openai_layout(content, path)
    return build_clip(require_weights(content, path), path)


def build_clip(state: State, where: object) -> nn.Module:
    """CLIP with the sizes given by the shapes in `state`, fp32, eval mode. Raises DataError if they are not CLIP's.

    Leaves torch's random state alone: the network is built on the meta device, which draws and allocates nothing.
    """
    module = import_clip()
    state = {name: tensor for name, tensor in state.items() if name not in NOT_WEIGHTS}
    try:
        with torch.device("meta"):
            network = module.model.build_model({name: tensor.to("meta") for name, tensor in state.items()})
        expected = network.float().state_dict()
        if network.context_length > MAX_CONTEXT:
            raise ValueError("context length")
        copies = {
            name: state[name].to(tensor.dtype, copy=True, memory_format=torch.contiguous_format)
            for name, tensor in expected.items()
        }
        network.load_state_dict(copies, assign=True)
        for block in network.transformer.resblocks:
            block.attn_mask = network.build_attention_mask()
    except (KeyError, RuntimeError, AssertionError, IndexError, ArithmeticError, ValueError, TypeError) as error:
        raise DataError("these weights are not CLIP's", where=where, remedy="Use a file in OpenAI's format") from error
    built: nn.Module = network.requires_grad_(True).eval()
    return built


def load_tuned(network: nn.Module, state: State, where: object) -> None:
    """Load tuned weights into `network`. Raises DataError if they belong to another kind of CLIP."""
    expected = network.state_dict()
    weights = {name: tensor for name, tensor in state.items() if name not in NOT_WEIGHTS}
    if mismatches := shape_mismatches(expected, weights):
        name = mismatches[0]
        got, wanted = (tuple(tensors[name].shape) if name in tensors else "missing" for tensors in (weights, expected))
        what = f"these tuned weights belong to a different CLIP: {name} is {got}, expected {wanted}"
        raise DataError(what, where=where, remedy="Set clip.model to the model that was tuned")
    network.load_state_dict({name: tensor.float() for name, tensor in weights.items()})


def shape_mismatches(expected: State, state: State) -> list[str]:
    """Names that only one of the state dicts has, or whose shapes differ, sorted."""
    shapes = [{(name, tensor.shape) for name, tensor in tensors.items()} for tensors in (expected, state)]
    return sorted({name for name, _ in shapes[0] ^ shapes[1]})


def is_official(path: Path) -> bool:
    """Whether this is one of OpenAI's own TorchScript archives, by its SHA-256, which is part of its URL."""
    hashes = {Path(url).parent.name for url in import_clip().clip._MODELS.values()}
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() in hashes
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", where=path, remedy="Check its permissions") from error


def require_weights(content: Mapping[object, object], where: object) -> dict[str, Tensor]:
    """`content` as a state dict. Raises DataError unless it is a reasonable number of named tensors."""
    state = {name: tensor for name, tensor in content.items() if isinstance(name, str) and isinstance(tensor, Tensor)}
    if not state or len(state) != len(content):
        what = "contains something other than named tensors" if content else "contains no weights"
        raise DataError(what, where=where, remedy="Save a state dict: torch.save(model.state_dict(), FILE)")
    if len(state) > MAX_TENSORS:
        raise DataError(f"contains more than {MAX_TENSORS:,} tensors", where=where, remedy="Use a CLIP or a combiner")
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in state.values()}
    total = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    # Names may share a tensor, but a small file must not take hours to process.
    if total > MAX_SHARING * sum(storages.values()) + 2**20:
        raise DataError("has too many names for the same tensor", where=where, remedy="Download or copy it again")
    return state


def require_openai_layout(content: Mapping[object, object], where: object) -> None:
    """Raise DataError, with the way to convert them, for weights known to be another library's."""
    if isinstance(content.get("state_dict"), Mapping):
        what = "is a training checkpoint as open_clip writes it, which does not record the activation"
        raise DataError(what, where=where, remedy=f"{OPEN_CLIP}, save its weights alone: {CONVERT}")
    names = [name for name in content if isinstance(name, str)]
    if any(name.startswith("module.") for name in names):
        what = 'has the prefix "module." of distributed training, as open_clip\'s checkpoints do'
        raise DataError(what, where=where, remedy=f"{OPEN_CLIP}, save its weights without the prefix")
    for prefix, model in FOREIGN_PREFIXES.items():
        if any(name.startswith(prefix) for name in names):
            remedy = "Use one of OpenAI's models, or a state dict with the names of OpenAI's clip package"
            raise DataError(f"is {model}, not OpenAI's CLIP ({prefix}…)", where=where, remedy=remedy)
    # open_clip's ViT-H splits its 1280 channels into heads of 80, OpenAI's class into heads of 64.
    conv = content.get("visual.conv1.weight")
    if isinstance(conv, Tensor) and "visual.proj" in content and conv.ndim == 4 and conv.shape[0] == 1280:
        what = "has the width of open_clip's ViT-H, whose attention heads OpenAI's CLIP does not have"
        raise DataError(what, where=where, remedy="Use one of OpenAI's models")


def needs_download(model: str | Path) -> bool:
    """Whether `load_clip` has to download one of OpenAI's models first."""
    if isinstance(model, Path):
        return False
    return not (DOWNLOADS.expanduser() / Path(import_clip().clip._MODELS[model]).name).is_file()


def _download(name: str) -> Path:
    clip = import_clip().clip
    try:
        return Path(clip._download(clip._MODELS[name], str(DOWNLOADS.expanduser())))
    except (URLError, OSError, RuntimeError) as error:
        what = f"CLIP {name} could not be downloaded ({error})"
        remedy = "Connect to the network once, or set clip.model to a downloaded file"
        raise MachineError(what, where="clip.model", remedy=remedy) from error


def import_clip() -> ModuleType:
    """OpenAI's `clip` module, without its warning about pkg_resources."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "pkg_resources is deprecated", UserWarning)
        return importlib.import_module("clip")
