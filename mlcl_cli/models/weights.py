"""OpenAI's CLIP from files, and fingerprints of weights. Weights are data: nothing in a file is ever executed."""

import hashlib
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from torch import Tensor, nn

from mlcl_cli.errors import DataError, MachineError
from mlcl_cli.models.foreign_layouts import require_openai_layout
from mlcl_cli.models.torch_files import read_torch_file

State = Mapping[str, Tensor]
NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size")
MAX_CONTEXT = 4096
MAX_NAMES = 10_000
MAX_SHARING = 8


def fingerprint(state: State, names: Iterable[str] | None = None) -> str:
    """Sixteen hex digits that stand for these weights: names, shapes and fp32 values, whatever their order."""
    digest = hashlib.sha256()
    for name in sorted(state if names is None else names):
        tensor = state[name].detach().cpu().float().contiguous()
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().data)
    return digest.hexdigest()[:16]


def load_clip(model: str | Path) -> nn.Module:
    """OpenAI's CLIP class with the weights of `model` in fp32, on the CPU, in eval mode.

    `model` is one of OpenAI's names (downloaded once to ~/.cache/clip, its checksum verified) or a file in OpenAI's
    format: a TorchScript archive or a plain state dict. Only OpenAI's own archives, known by their SHA-256, are loaded
    by TorchScript, which executes them; of any other only the tensors are read. Raises DataError or MachineError (no
    network).
    """
    path = model if isinstance(model, Path) else _download(model)
    return build_clip(_clip_state(path), path)


def build_clip(state: State, where: object) -> nn.Module:
    """CLIP with the sizes that `state`'s shapes tell, fp32, eval mode. Raises DataError if they are not CLIP's.

    Torch's random numbers stay as they are: no weight is drawn, and none is allocated before all shapes are known.
    """
    module = import_clip()
    state = {name: tensor for name, tensor in state.items() if name not in NOT_WEIGHTS}
    try:
        with torch.device("meta"):
            network = module.model.build_model({name: tensor.to("meta") for name, tensor in state.items()})
        own = network.float().state_dict()
        if network.context_length > MAX_CONTEXT:
            raise ValueError("context length")
        layout = torch.contiguous_format
        plain = {name: state[name].to(own[name].dtype, copy=True, memory_format=layout) for name in own}
        network.load_state_dict(plain, assign=True)
        for block in network.transformer.resblocks:
            block.attn_mask = network.build_attention_mask()
    except (KeyError, RuntimeError, AssertionError, IndexError, ArithmeticError, ValueError, TypeError) as error:
        raise DataError("these weights are not CLIP's", where=where, remedy="Give a file in OpenAI's format") from error
    built: nn.Module = network.requires_grad_(True).eval()
    return built


def load_tuned(network: nn.Module, state: State, where: object) -> None:
    """Load tuned weights into `network`. Raises DataError if they belong to another kind of CLIP."""
    expected = network.state_dict()
    weights = {name: tensor for name, tensor in state.items() if name not in NOT_WEIGHTS}
    if mismatches := shape_mismatches(expected, weights):
        name = mismatches[0]
        shapes = [tuple(tensors[name].shape) if name in tensors else "missing" for tensors in (weights, expected)]
        raise DataError(
            f"these tuned weights belong to another CLIP: {name} is {shapes[0]}, expected {shapes[1]}",
            where=where,
            remedy="Set clip.model to the model that was tuned",
        )
    network.load_state_dict({name: tensor.float() for name, tensor in weights.items()})


def shape_mismatches(expected: State, state: State) -> list[str]:
    """Names that only one of the state dicts has, or whose shapes differ, sorted."""
    names = sorted(expected.keys() | state.keys())
    return [
        name for name in names if name not in expected or name not in state or expected[name].shape != state[name].shape
    ]


def _clip_state(path: Path) -> State:
    if is_official(path):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*torch.jit.load", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            archive: nn.Module = torch.jit.load(str(path), map_location="cpu")
        return archive.state_dict()
    content = read_torch_file(path)
    remedy = "Give a file in OpenAI's format as clip.model"
    if not isinstance(content, dict) or not content:
        raise DataError("holds no CLIP weights", where=path, remedy=remedy)
    if isinstance(content.get("CLIP"), dict):
        raise DataError(
            "holds a tuned CLIP", where=path, remedy="Set clip.checkpoint to it, and clip.model to its base"
        )
    require_openai_layout(content, path)
    return require_weights(content, path)


def is_official(path: Path) -> bool:
    """Whether this is one of OpenAI's own files, by its SHA-256, which their download addresses hold."""
    hashes = {Path(url).parent.name for url in import_clip().clip._MODELS.values()}
    try:
        if not path.is_file() or not _is_archive_of_script(path):
            return False
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() in hashes
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", where=path, remedy="Check its permissions") from error


def require_weights(content: Mapping[Any, Any], where: object) -> dict[str, Tensor]:
    """`content` as a state dict. Raises DataError unless it holds named tensors alone, of a sensible total size."""
    state = {name: tensor for name, tensor in content.items() if isinstance(name, str) and isinstance(tensor, Tensor)}
    if not state or len(state) != len(content):
        what = "holds something other than named tensors" if content else "holds no weights"
        raise DataError(what, where=where, remedy="Give a state dict: torch.save(model.state_dict(), FILE)")
    if len(state) > MAX_NAMES:
        raise DataError(f"holds more than {MAX_NAMES:,} tensors", where=where, remedy="Give a CLIP or a combiner")
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in state.values()}
    total = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    # Names may share a tensor; a small file must not take hours to add up.
    if total > MAX_SHARING * sum(storages.values()) + 2**20:
        raise DataError("names the same tensor too often", where=where, remedy="Download or copy it again")
    return state


def _is_archive_of_script(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (ValueError, zipfile.BadZipFile, NotImplementedError):  # read_torch_file says what it is
        return False


def is_there(model: str | Path) -> bool:
    """Whether `load_clip` will find a file: one that is given, or one of OpenAI's that was downloaded before."""
    if isinstance(model, Path):
        return True  # a file that does not exist is load_clip's to tell
    url = import_clip().clip._MODELS[model]
    return (Path("~/.cache/clip").expanduser() / Path(url).name).is_file()


def _download(name: str) -> Path:
    clip = import_clip().clip
    try:
        return Path(clip._download(clip._MODELS[name], str(Path("~/.cache/clip").expanduser())))
    except (URLError, OSError, RuntimeError) as error:
        raise MachineError(
            f"CLIP {name} could not be downloaded ({error})",
            where="clip.model",
            remedy="Connect to the network once, or set clip.model to a downloaded file",
        ) from error


def import_clip() -> Any:
    """OpenAI's `clip` module, without its warning about pkg_resources."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "pkg_resources is deprecated", UserWarning)
        import clip
    return clip
