"""OpenAI's CLIP from files, and fingerprints of weights. Weights are data: nothing in a file is ever executed."""

import hashlib
import pickle
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from torch import Tensor, nn

from mlcl_cli.errors import DataError, MachineError

State = Mapping[str, Tensor]
NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size")


def fingerprint(state: State, names: Iterable[str] | None = None) -> str:
    """Sixteen hex digits that stand for these weights: names, shapes and fp32 values, whatever their order."""
    digest = hashlib.sha256()
    for name in sorted(state if names is None else names):
        tensor = state[name].detach().cpu().float().contiguous()
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().data)
    return digest.hexdigest()[:16]


def read_torch_file(path: Path) -> Any:
    """What `torch.save` wrote, weights only.

    Raises DataError for a file that is missing, damaged, or holds anything but tensors and plain types.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise DataError("this file does not exist", where=path, remedy="Give the path of a checkpoint") from error
    except pickle.UnpicklingError as error:
        raise DataError(
            "holds more than weights, or is no checkpoint", where=path, remedy="Only plain weights are ever loaded"
        ) from error
    except Exception as error:  # a damaged file may fail anywhere in torch's readers
        raise DataError("is no checkpoint, or damaged", where=path, remedy="Download or copy it again") from error


def load_clip(model: str | Path) -> nn.Module:
    """OpenAI's CLIP class with the weights of `model` in fp32, on the CPU, in eval mode.

    `model` is one of OpenAI's names (downloaded once to ~/.cache/clip, its checksum verified) or a file in OpenAI's
    format: a TorchScript archive or a plain state dict. Raises DataError or MachineError (no network).
    """
    path = model if isinstance(model, Path) else _download(model)
    return build_clip(_clip_state(path), path)


def build_clip(state: State, where: object) -> nn.Module:
    """CLIP with the sizes that `state`'s shapes tell, fp32, eval mode. Raises DataError if they are not CLIP's."""
    module = import_clip()
    state = {name: tensor for name, tensor in state.items() if name not in NOT_WEIGHTS}
    try:
        network: nn.Module = module.model.build_model(dict(state)).float()
        # build_model rounds weights to half precision; tuned weights are fp32 and must survive.
        network.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    except (KeyError, RuntimeError, AssertionError, IndexError, ZeroDivisionError) as error:
        raise DataError("these weights are not CLIP's", where=where, remedy="Give a file in OpenAI's format") from error
    return network.eval()


def load_tuned(network: nn.Module, state: State, where: object) -> None:
    """Puts tuned weights into `network`. Raises DataError where they belong to another kind of CLIP."""
    own = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    given = {name: tuple(tensor.shape) for name, tensor in state.items() if name not in NOT_WEIGHTS}
    if own != given:
        odd = sorted(name for name in own.keys() | given.keys() if own.get(name) != given.get(name))
        raise DataError(
            f"these tuned weights belong to another CLIP: {odd[0]} is {given.get(odd[0])}, not {own.get(odd[0])}",
            where=where,
            remedy="Set clip.model to the model that was tuned",
        )
    network.load_state_dict({name: tensor.float() for name, tensor in state.items() if name in own})


def _clip_state(path: Path) -> State:
    if _is_torchscript(path):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*torch.jit.load", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            try:
                archive: nn.Module = torch.jit.load(str(path), map_location="cpu")
            except RuntimeError as error:
                raise DataError("is a damaged archive", where=path, remedy="Download or copy it again") from error
        return archive.state_dict()
    content = read_torch_file(path)
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise DataError("holds no CLIP weights", where=path, remedy="Give a file in OpenAI's format as clip.model")
    return content


def _is_torchscript(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):  # read_torch_file tells what it is
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
