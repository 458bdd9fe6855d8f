"""Weights that are not OpenAI's, on the command line: none runs code, none ranks wrongly without a message."""

from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import Mlcl
from torch import Tensor, nn
from world import SIZES, world

from mlcl_cli.models.probe import distance, make_probe
from mlcl_cli.models.weights import build_clip, import_clip, load_clip
from mlcl_cli.runs.checkpoints import load_checkpoint, require_probe, save_checkpoint
from mlcl_cli.runs.description import Kind, TrainingDescription

SUM = ("evaluate", "--combining-function", "sum")


class Harmful(nn.Module):
    """Overwrites `victim` when TorchScript loads it."""

    def __init__(self, victim: str) -> None:
        super().__init__()
        self.victim = victim
        self.weight = nn.Parameter(torch.ones(2))

    def forward(self, x: Tensor) -> Tensor:
        return x

    @torch.jit.export
    def __getstate__(self) -> tuple[str, Tensor, bool]:
        return (self.victim, self.weight, self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[str, Tensor, bool]) -> None:
        torch.save(state[1], state[0])
        self.victim = state[0]
        self.weight = state[1]
        self.training = state[2]


@pytest.fixture
def harmful(tmp_path: Path) -> tuple[Path, Path]:
    """A TorchScript archive that destroys a file when TorchScript loads it, and that file."""
    victim, path = tmp_path / "victim", tmp_path / "harmful.pt"
    with pytest.warns((FutureWarning, DeprecationWarning), match="torch.jit"):
        torch.jit.script(Harmful(str(victim))).save(str(path))
    victim.write_text("mine")
    with pytest.warns((FutureWarning, DeprecationWarning), match="torch.jit"):
        torch.jit.load(str(path))
    assert victim.read_bytes() != b"mine"
    victim.write_text("mine")
    return path, victim


def test_no_command_runs_code_of_an_archive(mlcl: Mlcl, tmp_path: Path, harmful: tuple[Path, Path]) -> None:
    path, victim = harmful
    world(tmp_path, "cirr")
    assert mlcl("train-combiner", "--epochs", "1").code == 0
    (tmp_path / "clip.pt").write_bytes(path.read_bytes())
    for command in (("check",), SUM, ("evaluate",), ("query",)):
        outcome = mlcl(*command)
        assert outcome.code in (2, 3)
    outcome = mlcl("report")
    assert "clip.pt" in outcome.err
    assert mlcl(*SUM, "--set", "clip.model=harmful.pt").code == 3
    for command in (("evaluate", "--checkpoint", "harmful.pt"), ("export", "harmful.pt", "out.pt")):
        outcome = mlcl(*command)
        assert outcome.code == 3
        assert "torch.jit.load(FILE).state_dict()" in outcome.err
    assert victim.read_text() == "mine"


def clip_state(tmp_path: Path) -> dict[str, Tensor]:
    return dict(torch.load(tmp_path / "clip.pt", weights_only=True))


# open_clip's layouts: how each differs from a valid state dict, and a word of the error.
LAYOUTS: dict[str, tuple[Any, str]] = {
    "training checkpoint": (lambda s: {"epoch": 3, "name": "run", "state_dict": s, "optimizer": {}}, "open_clip"),
    "distributed": (lambda s: {"state_dict": {f"module.{name}": value for name, value in s.items()}}, "quick_gelu"),
    "prefixed": (lambda s: {f"module.{name}": value for name, value in s.items()}, "module."),
    "custom text tower": (lambda s: {f"text.{n}" if "resblocks" in n else n: v for n, v in s.items()}, "text tower"),
    "timm": (lambda s: s | {"visual.trunk.cls_token": torch.ones(1)}, "timm"),
    "siglip": (lambda s: s | {"logit_bias": torch.ones(1)}, "SigLIP"),
    "transformers": (lambda s: {f"vision_model.{name}": value for name, value in s.items()}, "transformers"),
    "ViT-H": (lambda s: s | {"visual.conv1.weight": torch.ones(1280, 3, 2, 2)}, "ViT-H"),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_open_clip_layouts_are_rejected_with_a_remedy(mlcl: Mlcl, tmp_path: Path, name: str) -> None:
    world(tmp_path, "cirr")
    change, word = LAYOUTS[name]
    torch.save(change(clip_state(tmp_path)), tmp_path / "clip.pt")
    outcome = mlcl(*SUM)
    assert outcome.code == 3
    assert "clip.pt" in outcome.err
    assert word in outcome.err


def test_check_notes_that_the_activation_is_assumed(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "cirr")
    (note,) = mlcl("check", "--json").findings("clip")
    assert note["severity"] == "note"
    assert "assuming OpenAI's quick GELU" in note["what"]


def test_check_recomputes_the_probe_of_a_tuned_clip(
    mlcl: Mlcl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world(tmp_path, "cirr")
    tuned = Path(mlcl("finetune", "--encoder", "text", "--epochs", "1", "--json").json["best"]["checkpoint"])
    checkpoint = load_checkpoint(tuned)
    assert checkpoint.about.probe is not None
    assert len(checkpoint.about.probe.image) == 16
    require_probe(checkpoint)
    assert mlcl("check", "--json").findings("checkpoints") == []
    model = import_clip().model
    monkeypatch.setattr(model.QuickGELU, "forward", lambda _self, x: nn.functional.gelu(x))
    errors = mlcl("check", "--json").findings("checkpoints")
    assert str(tuned) in {error["where"] for error in errors}
    assert all(error["severity"] == "error" for error in errors)
    assert all("encodes its probe differently" in error["what"] for error in errors)


def test_probe_distinguishes_weights_and_keeps_the_random_state(tmp_path: Path) -> None:
    world(tmp_path, "cirr")
    state = clip_state(tmp_path)
    probe = make_probe(state)
    assert distance(make_probe(state), probe) == 0
    before = torch.random.get_rng_state()
    save_checkpoint(tmp_path / "clip.safetensors", Kind.CLIP, state, TrainingDescription(), epoch=1)
    assert torch.equal(before, torch.random.get_rng_state())
    changed = {name: value * (1.02 if "c_fc" in name else 1) for name, value in state.items()}
    assert distance(make_probe(changed), probe) > 1e-3


def test_built_clip_has_the_weights_and_features_of_openais_loader(tmp_path: Path) -> None:
    torch.manual_seed(1)
    for sizes in (SIZES, {**SIZES, "vision_layers": (1, 1, 1, 1), "vision_width": 8, "vision_patch_size": None}):
        state = import_clip().model.CLIP(**sizes).state_dict()
        expected = import_clip().model.build_model(dict(state)).float()
        expected.load_state_dict(state)
        torch.save(state, tmp_path / "clip.pt")
        loaded: Any = load_clip(tmp_path / "clip.pt")
        assert all(torch.equal(tensor, state[name]) for name, tensor in loaded.state_dict().items())
        assert [name for name, _ in loaded.named_parameters()] == [name for name, _ in expected.named_parameters()]
        pixels, tokens = torch.randn(2, 3, 32, 32), import_clip().tokenize(["is red", "has stripes"])
        assert all(torch.equal(a, b) for a, b in zip(loaded(pixels, tokens), expected(pixels, tokens), strict=True))
        assert build_clip(state, "x").state_dict().keys() == state.keys()
