"""A tensor file's description can be trusted without reading its tensors, and each tensor without the others."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mlcl_cli.artifacts import Artifact, DamagedArtifactError

TENSORS = {
    "matrix": torch.arange(6.0).view(2, 3),
    "transposed": torch.arange(6.0).view(2, 3).T,
    "scalar": torch.tensor(7),
    "empty": torch.empty(0, 4),
    "half": torch.ones(3, dtype=torch.bfloat16),
}
DESCRIPTION = {"name": "a\nb", "sizes": [1, 2.5, None], "nested": {"on": True}}


def test_saved_artifact_loads_unchanged(tmp_path: Path) -> None:
    saved = Artifact.save(tmp_path / "a.safetensors", "mlcl test 1", DESCRIPTION, TENSORS)
    loaded, tensors = Artifact.load(saved.path, {})
    assert saved == loaded == Artifact.open(saved.path)
    assert (loaded.format, loaded.description) == ("mlcl test 1", DESCRIPTION)
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[name], tensor) for name, tensor in TENSORS.items())
    assert all(torch.equal(loaded.tensor(name), tensor) for name, tensor in TENSORS.items())


def test_damaged_tensor_leaves_the_description_and_other_tensors_readable(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    Artifact.save(path, "mlcl test 1", DESCRIPTION, {"first": torch.zeros(4), "second": torch.zeros(4)})
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"\x01")
    artifact = Artifact.open(path)
    assert artifact.description == DESCRIPTION
    assert artifact.tensor("first").tolist() == [0] * 4
    with pytest.raises(DamagedArtifactError, match="its second do not match their checksum"):
        artifact.tensor("second")
    with pytest.raises(DamagedArtifactError, match="its tensors do not match their checksums"):
        Artifact.load(path, {})


def test_file_replaced_after_opening_is_detected(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    artifact = Artifact.save(path, "mlcl test 1", {}, {"values": torch.zeros(4)})
    Artifact.save(path, "mlcl test 1", {}, {"values": torch.ones(4)})
    with pytest.raises(FileNotFoundError):
        artifact.tensor("values", verify=False)


def test_description_with_nan_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        Artifact.save(tmp_path / "a.safetensors", "mlcl test 1", {"score": float("nan")}, TENSORS)
    assert not list(tmp_path.iterdir())


def test_foreign_files_give_a_one_line_error(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"weights": torch.ones(2)}, path, {"format": "pt"})
    with pytest.raises(DamagedArtifactError, match=r"^\S+other\.safetensors: cannot be read \(it is damaged, or not"):
        Artifact.open(path)
    path.write_text("text\nmore")
    with pytest.raises(DamagedArtifactError) as caught:
        Artifact.load(path, {})
    assert "\n" not in str(caught.value)
