"""Whatever is frozen is computed once: an epoch on banked features calls no encoder."""

from pathlib import Path

import pytest
from world import world

from mlcl_cli.config import load_profile
from mlcl_cli.models.encoder import Encoder
from mlcl_cli.progress import NoProgress
from mlcl_cli.workflows import train as train_module
from mlcl_cli.workflows.stages import COMBINER, fine_tuning
from mlcl_cli.workflows.train import train


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Encoder calls from the first epoch on."""
    calls: list[str] = []
    real = {name: getattr(Encoder, name) for name in ("encode_images", "encode_texts")}
    for name in real:

        def counted(self: Encoder, inputs: object, name: str = name) -> object:
            calls.append(name)
            return real[name](self, inputs)

        monkeypatch.setattr(Encoder, name, counted)
    fit = train_module.fit

    def after_banks(*parts: object, **options: object) -> object:
        calls.clear()
        return fit(*parts, **options)

    monkeypatch.setattr(train_module, "fit", after_banks)
    return calls


def profile_of(folder: Path, *overrides: str) -> object:
    return load_profile(world(folder, "cirr") / "mlcl.yaml", overrides)


def test_combiner_epochs_on_banked_views_call_no_encoder(tmp_path: Path, calls: list[str]) -> None:
    train(profile_of(tmp_path, "combiner.epochs=3", "combiner.augmented_views=2"), NoProgress(), COMBINER)
    assert calls == []


def test_fresh_views_encode_the_views_alone(tmp_path: Path, calls: list[str]) -> None:
    train(profile_of(tmp_path, "combiner.epochs=3"), NoProgress(), COMBINER)
    assert calls == ["encode_images"] * 3


@pytest.mark.parametrize(("tower", "frozen"), [("text", "encode_images"), ("image", "encode_texts")])
def test_tuning_one_tower_never_encodes_with_the_other(
    tmp_path: Path, calls: list[str], tower: str, frozen: str
) -> None:
    train(profile_of(tmp_path), NoProgress(), fine_tuning(tower))
    assert calls
    assert frozen not in calls


def test_views_of_every_transform_share_one_bank(tmp_path: Path) -> None:
    folder = world(tmp_path, "cirr")
    for transform in ("targetpad", "squarepad"):
        overrides = ["combiner.epochs=1", "combiner.augmented_views=1", f"image.transform={transform}"]
        train(load_profile(folder / "mlcl.yaml", overrides), NoProgress(), COMBINER)
    names = [path.name for path in (folder / "work/features").iterdir()]
    assert len({name.split(".")[0] for name in names if name.startswith("views-")}) == 1
    assert len({name.split(".")[0] for name in names if name.startswith("images-")}) == 2
