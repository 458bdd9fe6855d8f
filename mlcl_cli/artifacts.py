"""The format of every tensor file that mlcl writes: safetensors, with a description and checksums in its metadata.

The metadata has four entries: `format` (a name and a version), `description` (JSON), `checksums` (JSON: the SHA-256 of
each tensor by name) and `checksum` (the SHA-256 of the other three). So a description can be trusted without reading
any tensor, and a tensor without reading the others.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeAlias

import torch
from pydantic import JsonValue, TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mlcl_cli.atomic_files import write_file
from mlcl_cli.errors import DataError, is_out_of_memory

Metadata: TypeAlias = Mapping[str, str]
Description: TypeAlias = Mapping[str, JsonValue]
Tensors: TypeAlias = Mapping[str, Tensor]
OlderReader: TypeAlias = Callable[[Metadata, Tensors], tuple[Description, Tensors]]

DESCRIPTION = TypeAdapter(dict[str, JsonValue])
CHECKSUMS = TypeAdapter(dict[str, str])


class DamagedArtifactError(DataError):
    """The content of a file is not what mlcl wrote."""

    def __init__(self, reason: str, path: Path) -> None:
        remedy = "Use another checkpoint of the run, or a file that mlcl wrote"
        super().__init__(f"cannot be read ({reason})", where=path, remedy=remedy)


@dataclass(frozen=True)
class Artifact:
    """A file whose description is verified. Files with the same `checksum` have the same content."""

    path: Path
    format: str
    description: Description
    checksums: Mapping[str, str]
    checksum: str

    @classmethod
    def save(cls, path: Path, file_format: str, description: Mapping[str, object], tensors: Tensors) -> Self:
        """Write the whole file or nothing: an earlier file at `path` stays until the new one is on disk.

        Raises MachineError where it cannot be written, ValueError for a description with NaN or infinity.
        """
        stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        checksums = json.dumps({name: checksum_of(tensor) for name, tensor in stored.items()})
        text = json.dumps(description, allow_nan=False)
        metadata = {"format": file_format, "description": text, "checksums": checksums}
        metadata["checksum"] = _header_checksum(metadata)

        def write_staged(staged: Path) -> None:
            try:
                save_file(stored, staged, metadata=metadata)
            except SafetensorError as error:
                raise OSError(str(error)) from error

        write_file(path, write_staged)
        return cls._of(path, metadata)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Read and verify the description. Raises DamagedArtifactError, or OSError where the file cannot be read."""
        metadata = read_metadata(path)
        with reporting_damage(path):
            return cls._of(path, metadata)

    @classmethod
    def load(cls, path: Path, older: Mapping[str, OlderReader]) -> tuple[Self, Tensors]:
        """Read and verify everything. `older` maps each earlier format to a reader that verifies and converts it.

        Raises DamagedArtifactError, also where the file cannot be read.
        """
        try:
            with reporting_damage(path), safe_open(path, framework="pt") as file:
                metadata: Metadata = file.metadata() or {}
                tensors: Tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                if (read_older := older.get(metadata.get("format", ""))) is not None:
                    description, tensors = read_older(metadata, tensors)
                    return cls(path, metadata["format"], description, {}, metadata["checksum"]), tensors
                artifact = cls._of(path, metadata)
                if {name: checksum_of(tensor) for name, tensor in tensors.items()} != artifact.checksums:
                    raise ValueError("its tensors do not match their checksums")
                return artifact, tensors
        except OSError as error:
            raise DamagedArtifactError(error.strerror or str(error), path) from error

    def tensor(self, name: str, *, verify: bool = True) -> Tensor:
        """A tensor, memory-mapped, and compared with its checksum if `verify`.

        Raises DamagedArtifactError, or OSError where the file cannot be read; FileNotFoundError where it was replaced.
        """
        with reporting_damage(self.path), safe_open(self.path, framework="pt") as file:
            if (file.metadata() or {}).get("checksum") != self.checksum:
                raise FileNotFoundError(self.path)
            tensor: Tensor = file.get_tensor(name)
            if verify and checksum_of(tensor) != self.checksums[name]:
                raise ValueError(f"its {name} do not match their checksum")
            return tensor

    @classmethod
    def _of(cls, path: Path, metadata: Metadata) -> Self:
        if metadata["checksum"] != _header_checksum(metadata):
            raise ValueError("its description does not match its checksum")
        description = DESCRIPTION.validate_json(metadata["description"])
        checksums = CHECKSUMS.validate_json(metadata["checksums"])
        return cls(path, metadata["format"], description, checksums, metadata["checksum"])


def read_metadata(path: Path) -> Metadata:
    """The metadata of a safetensors file, unverified. Raises DamagedArtifactError, or OSError if it cannot be read."""
    with reporting_damage(path), safe_open(path, framework="pt") as file:
        return file.metadata() or {}


def checksum_of(tensor: Tensor) -> str:
    """The SHA-256 of the type, shape and values of a contiguous tensor on the CPU."""
    digest = hashlib.sha256(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
    digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _header_checksum(metadata: Metadata) -> str:
    header = "\n".join(metadata[key] for key in ("format", "description", "checksums"))
    return hashlib.sha256(header.encode()).hexdigest()


@contextmanager
def reporting_damage(path: Path) -> Iterator[None]:
    """Turn what safetensors, torch and pydantic raise for unexpected content into a DamagedArtifactError."""
    try:
        yield
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise DamagedArtifactError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}", path) from error
    except (KeyError, SafetensorError) as error:
        raise DamagedArtifactError("it is damaged, or not a file that mlcl wrote", path) from error
    except (ValueError, TypeError, AttributeError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        raise DamagedArtifactError((str(error) or type(error).__name__).splitlines()[0], path) from error
