"""The profile: published names and defaults, the template, the shipped configs, round trips."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from mlcl_cli.config import Profile, dump, load_profile, template
from mlcl_cli.config.error_messages import KEYS
from mlcl_cli.config.schema import FOLDER_SECTIONS
from mlcl_cli.data.datasets import DATASETS
from mlcl_cli.errors import UsageError

Load = Callable[..., Profile]
CONFIGS = Path(__file__).parents[2] / "configs"
RECIPES = ("fashioniq", "shoes", "cirr")

# The published names and defaults: scripts rely on every one. Data sets may be added.
DEFAULTS = """
dataset: fashioniq
roots:
  fashioniq: data/fashionIQ_dataset
  shoes: data/shoes
  cirr: data/cirr_dataset
  circo: data/circo
  fashion200k: data/fashion200k
shoes:
  images: data/shoes/images
  annotations: data/shoes/annotations
workspace: runs
device: auto
precision: auto
seed: 0
workers: auto
bad_images: stop
resume: none
checkpoints:
  every_epochs: none
  every_minutes: 5
  keep_every: none
tensorboard: auto
loggers: []
clip:
  model: RN50x4
  checkpoint: auto
  encode_batch: auto
image:
  transform: targetpad
  target_ratio: 1.25
  max_megapixels: 64
  read_seconds: 120
finetune:
  encoder: both
  epochs: 100
  batch_size: 128
  learning_rate: 2.0e-6
  validate_every: 1
  chunk_size: none
  checkpoint_blocks: false
combiner:
  projection_dim: 2560
  hidden_dim: 5120
  epochs: 1000
  batch_size: 2048
  learning_rate: 2.0e-5
  validate_every: 1
  learned_temperature: true
  levels: [sum, cat, hybrid]
  sscl: [mid, high]
  augmented_views: fresh
  schedule: none
  inference_weights: released
  select_by: auto
evaluate:
  gallery: original
  exclude_reference: auto
  captions: auto
  text_weight: auto
catalog:
  name: default
  store: lancedb
  search: auto
  vectors: fp16
"""


def test_the_defaults_are_the_published_ones(folder: Path, load: Load) -> None:
    profile = load("dataset: fashioniq\n")
    expected = yaml.safe_load(DEFAULTS)
    values = profile.model_dump(mode="json")
    for name in DATASETS.keys() - expected["roots"]:
        assert values["roots"].pop(name) == str(folder / DATASETS[name].root)
        values.pop(name, None)
    for section in ("roots", "shoes"):
        expected[section] = {key: str(folder / path) for key, path in expected[section].items()}
    expected["workspace"] = str(folder / "runs")
    assert values.pop("datasets") == {}
    assert values == expected
    assert list(values) == list(expected)
    assert [list(value) for value in values.values() if isinstance(value, dict)] == [
        list(value) for value in expected.values() if isinstance(value, dict)
    ]
    assert load(DEFAULTS) == profile


def test_a_profile_is_frozen_and_holds_no_lists(load: Load) -> None:
    profile = load(DEFAULTS)
    assert profile.combiner.levels == ("sum", "cat", "hybrid")
    assert isinstance(hash(profile), int)
    with pytest.raises(ValidationError):
        profile.seed = 1  # type: ignore[misc]


def test_a_profile_can_be_made_in_code(monkeypatch: pytest.MonkeyPatch, folder: Path, load: Load) -> None:
    monkeypatch.chdir(folder)
    profile = Profile(dataset="shoes")
    assert profile == load("dataset: shoes\n")
    assert profile.root == folder / "data/shoes"
    with pytest.raises(ValidationError, match="nothing to train"):
        Profile.model_validate({"dataset": "cirr", "combiner": {"levels": ["sum"], "sscl": []}})


@pytest.mark.parametrize("dataset", DATASETS)
def test_the_template_is_the_default_profile_with_every_key(load: Load, dataset: str) -> None:
    text = template(dataset)
    assert load(text) == load(f"dataset: {dataset}\n")
    for section in FOLDER_SECTIONS:
        text = text.replace(f"# {section}:", f"{section}:")
    shown = yaml.safe_load(text.replace("#   ", "  "))
    assert leaves(shown) == set(KEYS)
    assert f"Set roots.{dataset};" in text
    assert max(map(len, text.splitlines())) <= 120


def leaves(values: dict[str, Any], above: str = "") -> set[str]:
    keys: set[str] = set()
    for key, value in values.items():
        keys |= leaves(value, f"{above}{key}.") if isinstance(value, dict) else {above + key}
    return keys


def test_a_template_of_an_unknown_data_set_suggests_one() -> None:
    with pytest.raises(UsageError, match="did you mean 'shoes'"):
        template("shoe")


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_config_loads(path: Path) -> None:
    profile = load_profile(path)
    assert profile == load_profile(path, [f"dataset={profile.dataset}"])


@pytest.mark.parametrize("dataset", RECIPES)
def test_the_recipes_are_the_defaults(folder: Path, load: Load, dataset: str) -> None:
    recipe = load_profile(CONFIGS / f"{dataset}.yaml")
    default = load(f"dataset: {dataset}\n")
    assert recipe.dataset == dataset
    for section in ("clip", "image", "finetune", "combiner", "evaluate", "seed", "precision"):
        assert getattr(recipe, section) == getattr(default, section)
    home = CONFIGS.parent.resolve()
    assert recipe.workspace == home / "runs"
    assert recipe.root.relative_to(home) == default.root.relative_to(folder)


@pytest.mark.parametrize("dataset", ["fashioniq", "cirr"])
def test_the_clip4cir_config_has_its_published_recipe(dataset: str) -> None:
    """The figures of the commands in CLIP4Cir's README; the network is CLIP4Cir's."""
    profile = load_profile(CONFIGS / "clip4cir.yaml", [f"dataset={dataset}"])
    stage1, stage2 = profile.finetune, profile.combiner
    assert (stage1.encoder, stage1.epochs, stage1.batch_size, stage1.learning_rate) == ("both", 100, 128, 2e-6)
    assert (stage2.projection_dim, stage2.hidden_dim, stage2.epochs) == (2560, 5120, 300)
    assert (stage2.batch_size, stage2.learning_rate) == (4096, 2e-5)
    assert (stage2.levels, stage2.sscl, stage2.learned_temperature) == (("hybrid",), (), False)
    assert (profile.image.transform, profile.image.target_ratio, profile.clip.model) == ("targetpad", 1.25, "RN50x4")


@example(name="a\x85b \u2028 # : $HOME ~", levels={"hybrid"}, rate=1.0, views=1)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=20),
    levels=st.sets(st.sampled_from(["sum", "cat", "hybrid"])).filter(lambda levels: "hybrid" in levels),
    rate=st.floats(min_value=0, exclude_min=True, allow_infinity=False, allow_nan=False),
    views=st.integers(1, 9) | st.just("fresh"),
)
def test_dump_loads_back_equal(folder: Path, name: str, levels: set[str], rate: float, views: int | str) -> None:
    combiner = {"levels": [*levels], "learning_rate": rate, "augmented_views": views}
    profile = Profile.model_validate(
        {"dataset": "cirr", "roots": {"cirr": folder / "x" / name}, "combiner": combiner, "clip": {"model": "ViT-B/32"}}
    )
    (folder / "elsewhere").mkdir(exist_ok=True)
    (folder / "elsewhere" / "mlcl.yaml").write_text(dump(profile), encoding="utf-8")
    assert load_profile(folder / "elsewhere" / "mlcl.yaml") == profile


def test_dump_is_readable(folder: Path, load: Load) -> None:
    text = dump(load(DEFAULTS))
    assert "  levels: [sum, cat, hybrid]\n" in text
    assert f"workspace: {folder}/runs\n" in text
