"""The profile: defaults, overrides, messages, round trips."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from mlcl_cli.errors import UsageError
from mlcl_cli.profile import Profile, dump, find_profile, load_profile, template
from mlcl_cli.profile.fields import CLIP_NAMES
from mlcl_cli.profile.report import KEYS

CONFIGS = Path(__file__).parents[2] / "configs"
DATASETS = ("fashioniq", "shoes", "cirr")

# The published names and defaults: scripts rely on every one.
DEFAULTS = """
dataset: fashioniq
roots:
  fashioniq: data/fashionIQ_dataset
  shoes: data/shoes
  cirr: data/cirr_dataset
shoes:
  images: data/shoes/images
  annotations: data/shoes/annotations
workspace: runs
device: auto
precision: auto
seed: 0
workers: auto
bad_images: stop
clip:
  model: RN50x4
  checkpoint: auto
image:
  transform: targetpad
  target_ratio: 1.25
finetune:
  encoder: both
  epochs: 100
  batch_size: 128
  learning_rate: 2.0e-6
  validate_every: 1
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
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path.resolve()


def load(folder: Path, text: str, *overrides: str) -> Profile:
    path = folder / "mlcl.yaml"
    path.write_text(text, encoding="utf-8")
    return load_profile(path, overrides)


def complaints(folder: Path, text: str, *overrides: str) -> list[str]:
    """The lines of the error, less the file's folder."""
    with pytest.raises(UsageError) as error:
        load(folder, text, *overrides)
    return str(error.value).replace(f"{folder}/", "").splitlines()


def complaint(folder: Path, text: str, *overrides: str) -> str:
    (line,) = complaints(folder, text, *overrides)
    return line


# Defaults and round trips


def test_the_defaults_are_the_published_ones(folder: Path) -> None:
    profile = load(folder, "dataset: fashioniq\n")
    expected = yaml.safe_load(DEFAULTS)
    found = profile.model_dump(mode="json")
    for section, keys in (("roots", ("fashioniq", "shoes", "cirr")), ("shoes", ("images", "annotations"))):
        expected[section] = {key: str(folder / expected[section][key]) for key in keys}
    expected["workspace"] = str(folder / "runs")
    assert found == expected
    assert list(found) == list(expected)
    assert [list(value) for value in found.values() if isinstance(value, dict)] == [
        list(value) for value in expected.values() if isinstance(value, dict)
    ]
    assert load(folder, DEFAULTS) == profile


def test_a_profile_is_frozen_and_holds_no_lists(folder: Path) -> None:
    profile = load(folder, DEFAULTS)
    assert profile.combiner.levels == ("sum", "cat", "hybrid")
    assert isinstance(hash(profile), int)
    with pytest.raises(ValidationError):
        profile.seed = 1  # type: ignore[misc]


def test_a_profile_can_be_made_in_code(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.chdir(folder)
    profile = Profile(dataset="shoes")
    assert profile == load(folder, "dataset: shoes\n")
    assert profile.root == folder / "data/shoes"
    with pytest.raises(ValidationError, match="nothing to train"):
        Profile.model_validate({"dataset": "cirr", "combiner": {"levels": ["sum"], "sscl": []}})


@pytest.mark.parametrize("dataset", DATASETS)
def test_the_template_is_the_default_profile_with_every_key(folder: Path, dataset: str) -> None:
    text = template(dataset)
    assert load(folder, text) == load(folder, f"dataset: {dataset}\n")
    shown = yaml.safe_load(text.replace("# shoes:", "shoes:").replace("#   ", "  "))
    assert leaves(shown) == set(KEYS)
    assert f"Fill in roots.{dataset};" in text
    assert max(map(len, text.splitlines())) <= 120


def leaves(values: dict[str, Any], above: str = "") -> set[str]:
    found: set[str] = set()
    for key, value in values.items():
        found |= leaves(value, f"{above}{key}.") if isinstance(value, dict) else {above + key}
    return found


def test_a_template_needs_a_data_set() -> None:
    with pytest.raises(UsageError, match="did you mean 'shoes'"):
        template("shoe")


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_config_loads(path: Path) -> None:
    profile = load_profile(path)
    assert profile == load_profile(path, [f"dataset={profile.dataset}"])


@pytest.mark.parametrize("dataset", DATASETS)
def test_the_recipes_are_the_defaults(folder: Path, dataset: str) -> None:
    recipe = load_profile(CONFIGS / f"{dataset}.yaml")
    default = load(folder, f"dataset: {dataset}\n")
    assert recipe.dataset == dataset
    for section in ("clip", "image", "finetune", "combiner", "evaluate", "seed", "precision"):
        assert getattr(recipe, section) == getattr(default, section)
    assert recipe.workspace == CONFIGS.parent.resolve() / "runs"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=20),
    levels=st.sets(st.sampled_from(["sum", "cat", "hybrid"])).filter(lambda found: "hybrid" in found),
    rate=st.floats(min_value=0, exclude_min=True, allow_infinity=False, allow_nan=False),
    views=st.integers(1, 9) | st.just("fresh"),
)
def test_dump_loads_back_equal(folder: Path, name: str, levels: set[str], rate: float, views: int | str) -> None:
    combiner = {"levels": [*levels], "learning_rate": rate, "augmented_views": views}
    profile = Profile.model_validate(
        {"dataset": "cirr", "roots": {"cirr": folder / "x" / name}, "combiner": combiner, "clip": {"model": "ViT-B/32"}}
    )
    (folder / "elsewhere").mkdir(exist_ok=True)
    assert load(folder / "elsewhere", dump(profile)) == profile


def test_dump_is_readable(folder: Path) -> None:
    text = dump(load(folder, DEFAULTS))
    assert "  levels: [sum, cat, hybrid]\n" in text
    assert f"workspace: {folder}/runs\n" in text


# Paths


def test_paths_start_at_the_profiles_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA", "/big/data")
    monkeypatch.setenv("HOME", "/home/someone")
    profile = load(
        folder,
        "dataset: shoes\nroots: {fashioniq: $DATA/fiq, shoes: '${DATA}/shoes', cirr: ~/cirr}\nworkspace: ../out\n"
        "clip: {model: clip.pt, checkpoint: tuned/best}\nshoes: {images: cost$$5}\n",
    )
    assert profile.root == profile.roots.shoes == Path("/big/data/shoes")
    assert profile.roots.fashioniq == Path("/big/data/fiq")
    assert profile.roots.cirr == Path("/home/someone/cirr")
    assert profile.workspace == folder.parent / "out"
    assert profile.clip.model == folder / "clip.pt"
    assert profile.clip.checkpoint == folder / "tuned/best"
    assert profile.shoes.images == folder / "cost$5"
    assert profile.shoes.annotations == Path("/big/data/shoes/annotations")


def test_paths_of_overrides_start_at_the_working_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "here").mkdir()
    monkeypatch.chdir(folder / "here")
    profile = load(folder, "dataset: cirr\n", "clip.checkpoint=best.pt", "roots.shoes=shoes", "clip.model=RN50")
    assert profile.clip.checkpoint == folder / "here/best.pt"
    assert profile.clip.model == "RN50"
    assert type(profile.clip.model) is str
    assert profile.shoes.images == folder / "here/shoes/images"
    assert profile.workspace == folder / "runs"


def test_an_unset_variable_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOWHERE", raising=False)
    text = "dataset: cirr\nworkspace: ${NOWHERE}/x\n"
    expected = "mlcl.yaml:2: workspace: takes the environment variable 'NOWHERE', which is not set"
    assert complaint(folder, text) == expected


@pytest.mark.parametrize("value", ["3", "[a]", "''", "~", "'a\\0b'", '"a\\0b"', "~nobody-of-this-name/x"])
def test_what_is_no_path(folder: Path, value: str) -> None:
    if value == "'a\\0b'":
        load(folder, f"dataset: cirr\nworkspace: {value}\n")
    else:
        assert "path" in complaint(folder, f"dataset: cirr\nworkspace: {value}\n")


# CLIP


def test_clips_names_are_openais() -> None:
    import clip

    assert list(CLIP_NAMES) == clip.available_models()


@pytest.mark.parametrize("model", CLIP_NAMES)
def test_clips_names_are_taken(folder: Path, model: str) -> None:
    assert load(folder, f"dataset: cirr\nclip: {{model: {model}}}\n").clip.model == model


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [("RN50x5", "RN50"), ("rn50x4", "RN50x4"), ("ViT-L/14@336", "ViT-L/14@336px"), ("ViT-B/31", "ViT-B/32")],
)
def test_an_unknown_clip_name(folder: Path, wrong: str, meant: str) -> None:
    line = complaint(folder, f"dataset: cirr\nclip:\n  model: {wrong}\n")
    assert line.startswith("mlcl.yaml:3: clip.model: must be one of RN50, RN101,")
    assert f"not '{wrong}'; did you mean '{meant}" in line


@pytest.mark.parametrize("model", ["weights/RN50x4", "my.pt", "./RN50x5", "/a/b", "ViT-B/32.pt"])
def test_a_clip_file(folder: Path, model: str) -> None:
    assert load(folder, f"dataset: cirr\nclip: {{model: {model}}}\n").clip.model == folder / model


def test_a_checkpoint_is_a_word_or_a_file(folder: Path) -> None:
    assert load(folder, "dataset: cirr\nclip: {checkpoint: none}\n").clip.checkpoint == "none"
    assert load(folder, "dataset: cirr\n", "clip.checkpoint=none").clip.checkpoint == "none"
    line = complaint(folder, "dataset: cirr\nclip: {checkpoint: best}\n")
    assert line.endswith("must be auto, none or a file, not 'best'. A file needs a folder or an ending: ./best")
    assert complaint(folder, "dataset: cirr\nclip: {checkpoint: non}\n").endswith("did you mean 'none'?")


# Messages


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("dataset", "fashionq", "must be one of fashioniq, shoes, cirr, not 'fashionq'; did you mean 'fashioniq'?"),
        ("seed", "-1", "must be a whole number of at least 0, not -1"),
        ("seed", "1.0", "must be a whole number of at least 0, not 1.0"),
        ("seed", "true", "must be a whole number of at least 0, not true"),
        ("seed", "99999999999999999999", "must be at most 9,223,372,036,854,775,807, not 99999999999999999999"),
        ("workers", "0", "must be auto or a whole number of at least 1, not 0"),
        ("workers", "many", "must be auto or a whole number of at least 1, not 'many'"),
        ("device", "gpu", "must be one of auto, cuda, cpu, not 'gpu'; did you mean 'cpu'?"),
        ("bad_images", "no", "must be one of stop, drop, not 'no'"),
        ("image.target_ratio", "0.9", "must be a number of at least 1, not 0.9"),
        ("image.target_ratio", ".nan", "must be a number of at least 1, not nan"),
        ("finetune.epochs", "ten", "must be a whole number of at least 1, not 'ten'"),
        ("finetune.epochs", "", "must be a whole number of at least 1, not empty"),
        ("finetune.batch_size", "1", "must be a whole number of at least 2, not 1"),
        ("finetune.learning_rate", "0", "must be a number above 0, not 0"),
        ("finetune.learning_rate", ".inf", "must be a number above 0, not inf"),
        ("finetune.learning_rate", "x" * 290, f"must be a number above 0, not '{'x' * 56}..."),
        ("combiner.projection_dim", "3000000000", "must be at most 2,147,483,647, not 3000000000"),
        ("combiner.learned_temperature", "yes", "must be true or false, not 'yes'"),
        ("combiner.levels", "hybrid", "must be a list of sum, cat, hybrid, such as [hybrid], not 'hybrid'"),
        ("combiner.levels", "[hybird]", "must be a list of sum, cat, hybrid, not 'hybird'; did you mean 'hybrid'?"),
        ("combiner.levels", "[cat, cat]", "has 'cat' twice"),
        ("combiner.sscl", "[low]", "must be a list of mid, high, not 'low'"),
        ("combiner.augmented_views", "0", "must be fresh or a whole number of at least 1, not 0"),
        ("combiner.select_by", "[1]", "must be one of auto, arithmetic, harmonic, geometric, not [1]"),
        ("evaluate.gallery", "{a: 1}", "must be one of original, val, not a section"),
    ],
)
def test_a_wrong_value(folder: Path, key: str, value: str, message: str) -> None:
    *section, name = key.split(".")
    lines = [f"{section[0]}:", f"  {name}: {value}"] if section else [f"{name}: {value}"]
    head = [] if key == "dataset" else ["dataset: cirr"]
    text = "\n".join([*head, *lines]) + "\n"
    assert complaint(folder, text) == f"mlcl.yaml:{len(head) + len(lines)}: {key}: {message}"
    typed = f"{key}={value}"
    assert complaint(folder, "dataset: cirr\n", typed) == f"--set {typed}: {message}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "mlcl.yaml: dataset: is required: one of fashioniq, shoes, cirr"),
        ("# nothing\n", "mlcl.yaml: dataset: is required: one of fashioniq, shoes, cirr"),
        ("dataset: cirr\nsed: 1\n", "mlcl.yaml:2: sed: unknown key; did you mean 'seed'?"),
        (
            "dataset: cirr\ncombiner:\n  epohcs: 1\n",
            "mlcl.yaml:3: combiner.epohcs: unknown key; did you mean 'epochs'?",
        ),
        (
            "dataset: cirr\nepochs: 1\n",
            "mlcl.yaml:2: epochs: unknown key; did you mean 'finetune.epochs' or 'combiner.epochs'?",
        ),
        (
            "dataset: cirr\nimage: {zzz: 1}\n",
            "mlcl.yaml:2: image.zzz: unknown key; the keys here are transform or target_ratio",
        ),
        ('dataset: cirr\n"a\\e[1m": 1\n', "mlcl.yaml:2: 'a\\x1b[1m': unknown key; the keys here are dataset, roots"),
        (
            "dataset: cirr\nimage: 3\n",
            "mlcl.yaml:2: image: must be a section with the keys transform or target_ratio, not 3",
        ),
        ("dataset: cirr\nseed: 1\nseed: 2\n", "mlcl.yaml:3: seed: is given twice, first on line 2"),
        ("- a\n", "mlcl.yaml:1: must be keys and values, such as `dataset: cirr`, not ['a']"),
        ("dataset: [\n", "mlcl.yaml:2: is not YAML"),
        ("dataset: cirr\n---\n", "mlcl.yaml:2: starts a second document"),
    ],
)
def test_a_wrong_file(folder: Path, text: str, message: str) -> None:
    assert complaint(folder, text).startswith(message)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("combiner.epohcs=3", "unknown key; did you mean 'combiner.epochs'?"),
        ("combinr.epochs=3", "unknown key; did you mean 'combiner.epochs'?"),
        ("combiner=3", "combiner is a section; set one of its keys, such as combiner.projection_dim"),
        ("seed", "must be KEY=VALUE, such as seed=1"),
        ("=1", "unknown key; the keys here are dataset, "),
        ("seed.x=1", "unknown key; did you mean 'seed'?"),
        ("combiner.levels=[cat", "is not YAML"),
        ("workspace=", "must be a path, not empty"),
        ("seed=\udcff", "has a character that is no text"),
    ],
)
def test_a_wrong_override(folder: Path, override: str, message: str) -> None:
    line = complaint(folder, "dataset: cirr\n", override)
    shown = override if override.isprintable() else repr(override)
    assert line.startswith(f"--set {shown}: {message}")


def test_overrides_win_and_the_last_of_them(folder: Path) -> None:
    text = "dataset: fashion\nfinetune:\ncombiner:\n  epochs: ten\n"
    profile = load(
        folder,
        text,
        "dataset=cirr",
        "combiner.epochs=4",
        "combiner.epochs=5",
        "finetune.learning_rate=2e-06",
        "combiner.sscl=[]",
        "combiner.levels=[cat]",
        " seed = 3",
    )
    assert profile.dataset == "cirr"
    assert profile.combiner.epochs == 5
    assert profile.combiner.validate_every == 1
    assert profile.finetune.learning_rate == 2e-6
    assert profile.combiner.sscl == ()
    assert profile.combiner.levels == ("cat",)
    assert profile.seed == 3


def test_overrides_need_no_file_content(folder: Path) -> None:
    assert load(folder, "", "dataset=shoes").dataset == "shoes"


def test_an_aliased_section_is_not_overridden_with_its_twin(folder: Path) -> None:
    text = "dataset: cirr\nfinetune: &s {epochs: 5}\ncombiner: *s\n"
    profile = load(folder, text, "combiner.epochs=7")
    assert (profile.finetune.epochs, profile.combiner.epochs) == (5, 7)


def test_levels_are_a_set(folder: Path) -> None:
    profile = load(folder, "dataset: cirr\ncombiner: {levels: [hybrid, sum], sscl: [high, mid]}\n")
    assert profile.combiner.levels == ("sum", "hybrid")
    assert profile.combiner.sscl == ("mid", "high")


def test_every_problem_is_told_at_once(folder: Path) -> None:
    text = "dataset: ciir\nsed: 1\nfinetune:\n  epochs: 0\n  epochs: 0\ncombiner:\n  levels: [sum]\n  sscl: []\n"
    assert complaints(folder, text, "device=gpu", "wrkspace=x") == [
        "mlcl.yaml:1: dataset: must be one of fashioniq, shoes, cirr, not 'ciir'; did you mean 'cirr'?",
        "mlcl.yaml:2: sed: unknown key; did you mean 'seed'?",
        "mlcl.yaml:5: finetune.epochs: is given twice, first on line 4",
        "mlcl.yaml:5: finetune.epochs: must be a whole number of at least 1, not 0",
        "mlcl.yaml:7: combiner.levels: must have cat or hybrid: without them there is nothing to train",
        "--set wrkspace=x: unknown key; did you mean 'workspace'?",
        "--set device=gpu: must be one of auto, cuda, cpu, not 'gpu'; did you mean 'cpu'?",
    ]


# Contradictions


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        (
            "combiner:\n  levels: [sum, cat]\n",
            [],
            "mlcl.yaml:3: combiner.levels: combiner.sscl has high, which needs the level hybrid, "
            "and combiner.levels has none",
        ),
        (
            "combiner:\n  levels: [sum, cat]\n  sscl: [high]\n",
            [],
            "mlcl.yaml:4: combiner.sscl: has high, which needs the level hybrid, and combiner.levels has none",
        ),
        (
            "combiner: {sscl: [mid]}\n",
            ["combiner.levels=[sum]"],
            "--set combiner.levels=[sum]: must have cat or hybrid: without them there is nothing to train",
        ),
        (
            "combiner: {select_by: harmonic}\n",
            ["dataset=shoes"],
            "mlcl.yaml:2: combiner.select_by: must be auto: only cirr has several bests, and the data set is shoes",
        ),
        (
            "finetune:\n  validate_every: 5\n",
            ["finetune.epochs=4"],
            "mlcl.yaml:3: finetune.validate_every: must be at most the number of epochs, 4, not 5",
        ),
        (
            "",
            ["combiner.validate_every=1001"],
            "--set combiner.validate_every=1001: must be at most the number of epochs, 1000, not 1001",
        ),
    ],
)
def test_contradictions(folder: Path, text: str, overrides: list[str], message: str) -> None:
    assert complaint(folder, f"dataset: cirr\n{text}", *overrides) == message


def test_what_is_no_contradiction(folder: Path) -> None:
    load(folder, "dataset: cirr\ncombiner: {select_by: geometric, levels: [cat], sscl: [mid], validate_every: 1000}\n")
    load(folder, "dataset: shoes\ncombiner: {select_by: auto, levels: [hybrid]}\n")


# Files


def test_the_profile_is_found(folder: Path) -> None:
    with pytest.raises(UsageError, match="Run `mlcl init`"):
        find_profile(None, {"MLCL_PROFILE": ""}, folder)
    (folder / "mlcl.yaml").touch()
    assert find_profile(None, {}, folder) == (folder / "mlcl.yaml", "./mlcl.yaml")
    env = {"MLCL_PROFILE": "/a/b.yaml"}
    assert find_profile(None, env, folder) == (Path("/a/b.yaml"), "$MLCL_PROFILE")
    assert find_profile(Path("c.yaml"), env, folder) == (folder / "c.yaml", "--profile")
    assert find_profile(Path("~/c.yaml"), env, folder) == (Path.home() / "c.yaml", "--profile")
    with pytest.raises(UsageError, match="home"):
        find_profile(Path("~nobody-of-this-name/c.yaml"), {}, folder)


def test_files_that_cannot_be_read(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"does not exist. Run `mlcl init`"):
        load_profile(folder / "none.yaml")
    with pytest.raises(UsageError, match="is a folder"):
        load_profile(folder)
    (folder / "latin.yaml").write_bytes(b"dataset: cirr\n# caf\xe9\n")
    with pytest.raises(UsageError, match=r"latin.yaml:2: is not UTF-8"):
        load_profile(folder / "latin.yaml")
    (folder / "wide.yaml").write_bytes("dataset: cirr\n".encode("utf-16"))
    with pytest.raises(UsageError, match=r"wide.yaml:1: is not UTF-8"):
        load_profile(folder / "wide.yaml")
    (folder / "large.yaml").write_bytes(b"#" * 5_000_000)
    with pytest.raises(UsageError, match="too large"):
        load_profile(folder / "large.yaml")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_permission(folder: Path) -> None:
    (folder / "mlcl.yaml").touch(mode=0)
    with pytest.raises(UsageError, match="cannot be read"):
        load_profile(folder / "mlcl.yaml")


def test_a_byte_order_mark_and_windows_lines_are_fine(folder: Path) -> None:
    (folder / "mlcl.yaml").write_bytes(b"\xef\xbb\xbfdataset: cirr\r\nseed: 3\r\n")
    assert load_profile(folder / "mlcl.yaml").seed == 3


def test_importing_costs_no_torch() -> None:
    code = "import sys, mlcl_cli.profile; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# Anything at all


def check(folder: Path, content: bytes, overrides: list[str]) -> None:
    path = folder / "mlcl.yaml"
    path.write_bytes(content)
    try:
        profile = load_profile(path, overrides)
    except UsageError as error:
        text = str(error)
        assert text
        assert all(line.isprintable() for line in text.replace(str(folder), "").splitlines())
        assert not any(word in text for word in ("Input should", "pydantic", "literal", "type="))
    else:
        assert load_profile(path, overrides) == profile


fuzz = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
words = st.sampled_from(["auto", "none", "cirr", "$X", "~", "~x", "RN50", "", "a/b", "mid", "hybrid", "cat"])
values = st.recursive(
    scalars | words, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=2), max_leaves=4
)
sections = ["roots", "shoes", "clip", "image", "finetune", "combiner", "evaluate"]


@fuzz
@given(st.binary(max_size=80), st.lists(st.text(max_size=12), max_size=2))
def test_any_bytes_give_a_profile_or_a_usage_error(folder: Path, content: bytes, overrides: list[str]) -> None:
    check(folder, content, overrides)


@fuzz
@given(data=st.data())
def test_any_change_of_the_template_gives_a_profile_or_a_usage_error(folder: Path, data: st.DataObject) -> None:
    lines = template(data.draw(st.sampled_from(DATASETS))).splitlines()
    row = data.draw(st.integers(0, len(lines) - 1))
    column = data.draw(st.integers(0, 30))
    lines[row] = (
        lines[row][:column] + data.draw(st.text(max_size=6)) + lines[row][column + data.draw(st.integers(0, 9)) :]
    )
    check(folder, "\n".join(lines).encode("utf-8", "surrogatepass"), [])


@fuzz
@given(
    st.dictionaries(
        st.sampled_from(sorted({key.split(".")[0] for key in KEYS})) | st.text(max_size=5),
        values | st.dictionaries(st.sampled_from([key.split(".")[-1] for key in KEYS]), values, max_size=3),
        max_size=5,
    ),
    st.lists(st.tuples(st.sampled_from([*KEYS, *sections, "x.y"]), values), max_size=3),
)
def test_any_values_give_a_profile_or_a_usage_error(
    folder: Path, content: dict[str, Any], typed: list[tuple[str, Any]]
) -> None:
    overrides = [f"{key}={yaml.safe_dump(value, default_flow_style=True).strip()}" for key, value in typed]
    check(folder, yaml.safe_dump({"dataset": "cirr", **content}, allow_unicode=True).encode(), overrides)
