"""Messages about a wrong profile, and the precedence of overrides."""

from collections.abc import Callable

import pytest

from mlcl_cli.config import Profile
from mlcl_cli.config.error_messages import KEYS, SYNONYMS
from mlcl_cli.data.datasets import DATASETS
from mlcl_cli.streams import printable

Load = Callable[..., Profile]
Complaint = Callable[..., str]
Complaints = Callable[..., list[str]]
KNOWN = ", ".join(DATASETS)
ROOTS = " or ".join(f"'roots.{name}'" for name in DATASETS)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("dataset", "fashionq", f"must be one of {KNOWN}, not 'fashionq'; did you mean 'fashioniq'?"),
        ("seed", "-1", "must be an integer of at least 0, not -1"),
        ("seed", "1.0", "must be an integer of at least 0, not 1.0"),
        ("seed", "true", "must be an integer of at least 0, not true"),
        ("seed", "99999999999999999999", "must be at most 9,223,372,036,854,775,807, not 99999999999999999999"),
        ("workers", "0", "must be auto or a positive integer, not 0"),
        ("workers", "many", "must be auto or a positive integer, not 'many'"),
        ("device", "gpu", "must be one of auto, cuda, cpu, not 'gpu'; did you mean 'cpu'?"),
        ("bad_images", "no", "must be one of stop, drop, not 'no'"),
        ("image.target_ratio", "0.9", "must be a number of at least 1, not 0.9"),
        ("image.target_ratio", ".nan", "must be a number of at least 1, not nan"),
        ("finetune.epochs", "ten", "must be a positive integer, not 'ten'"),
        ("finetune.epochs", "", "must be a positive integer, not an empty value"),
        ("finetune.batch_size", "1", "must be an integer of at least 2, not 1"),
        ("finetune.learning_rate", "0", "must be a positive number, not 0"),
        ("finetune.learning_rate", ".inf", "must be a positive number, not inf"),
        ("finetune.learning_rate", "x" * 290, f"must be a positive number, not '{'x' * 56}..."),
        ("combiner.projection_dim", "3000000000", "must be at most 2,147,483,647, not 3000000000"),
        ("combiner.learned_temperature", "yes", "must be true or false, not 'yes'"),
        ("combiner.levels", "hybrid", "must be a list of sum, cat, hybrid, such as [hybrid], not 'hybrid'"),
        (
            "combiner.levels",
            "[hybird]",
            "must be a list of sum, cat, hybrid, such as [hybrid], not 'hybird'; did you mean 'hybrid'?",
        ),
        ("combiner.levels", "[cat, cat]", "lists 'cat' twice"),
        ("combiner.sscl", "[low]", "must be a list of mid, high, such as [high], not 'low'"),
        ("combiner.augmented_views", "0", "must be fresh or a positive integer, not 0"),
        ("combiner.select_by", "[1]", "must be one of auto, arithmetic, harmonic, geometric, not [1]"),
        ("evaluate.gallery", "{a: 1}", "must be one of original, val, not a section"),
    ],
)
def test_a_wrong_value_names_what_its_key_takes(complaint: Complaint, key: str, value: str, message: str) -> None:
    *section, name = key.split(".")
    lines = [f"{section[0]}:", f"  {name}: {value}"] if section else [f"{name}: {value}"]
    head = [] if key == "dataset" else ["dataset: cirr"]
    text = "\n".join([*head, *lines]) + "\n"
    assert complaint(text) == f"mlcl.yaml:{len(head) + len(lines)}: {key}: {message}"
    typed = f"{key}={value}"
    assert complaint("dataset: cirr\n", typed) == f"--set {typed}: {message}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", f"mlcl.yaml: dataset: is required: one of {KNOWN}"),
        ("# nothing\n", f"mlcl.yaml: dataset: is required: one of {KNOWN}"),
        ("dataset: cirr\nsed: 1\n", "mlcl.yaml:2: sed: unknown key; did you mean 'seed'?"),
        (
            "dataset: cirr\ncombiner:\n  epohcs: 1\n",
            "mlcl.yaml:3: combiner.epohcs: unknown key; did you mean 'combiner.epochs'?",
        ),
        (
            "dataset: cirr\ncombiner:\n  lr: 1\n",
            "mlcl.yaml:3: combiner.lr: unknown key; did you mean 'combiner.learning_rate'?",
        ),
        (
            "dataset: cirr\nepochs: 1\n",
            "mlcl.yaml:2: epochs: unknown key; did you mean 'finetune.epochs' or 'combiner.epochs'?",
        ),
        (
            "dataset: cirr\nimage: {zzz: 1}\n",
            "mlcl.yaml:2: image.zzz: unknown key; valid keys here are transform, target_ratio, "
            "max_megapixels, read_seconds",
        ),
        (
            'dataset: cirr\n"a\\e[1m": 1\n',
            "mlcl.yaml:2: a\\x1b[1m: unknown key; valid keys here are dataset, datasets",
        ),
        (
            "dataset: cirr\nimage: 3\n",
            "mlcl.yaml:2: image: must be a section with the keys transform, target_ratio, "
            "max_megapixels, read_seconds, not 3",
        ),
        ("dataset: cirr\nseed: 1\nseed: 2\n", "mlcl.yaml:3: seed: duplicate key, first defined on line 2"),
        ("- a\n", "mlcl.yaml:1: must be keys and values, such as `dataset: cirr`, not ['a']"),
        ("dataset: [\n", "mlcl.yaml:2: is not YAML"),
        ("dataset: cirr\n---\n", "mlcl.yaml:2: starts a second document"),
    ],
)
def test_a_wrong_file_names_the_line(complaint: Complaint, text: str, message: str) -> None:
    assert complaint(text).startswith(message)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("combiner.epohcs=3", "unknown key; did you mean 'combiner.epochs'?"),
        ("combinr.epochs=3", "unknown key; did you mean 'combiner.epochs'?"),
        ("combiner.lr=1e-4", "unknown key; did you mean 'combiner.learning_rate'?"),
        ("lr=1e-4", "unknown key; did you mean 'finetune.learning_rate' or 'combiner.learning_rate'?"),
        ("train.lr=1e-4", "unknown key; did you mean 'finetune.learning_rate' or 'combiner.learning_rate'?"),
        ("finetune.bs=4", "unknown key; did you mean 'finetune.batch_size'?"),
        ("combiner.tau=4", "unknown key; did you mean 'combiner.learned_temperature'?"),
        ("finetune.temperature=4", "unknown key; did you mean 'combiner.learned_temperature'?"),
        ("combiner.num-workers=4", "unknown key; did you mean 'workers'?"),
        ("clip.name=RN50", "unknown key; did you mean 'clip.model'?"),
        ("output_dir=x", "unknown key; did you mean 'workspace'?"),
        ("fp16=true", "unknown key; did you mean 'precision'?"),
        ("data_root=x", f"unknown key; did you mean {ROOTS}?"),
        ("combiner.galery=val", "unknown key; did you mean 'evaluate.gallery'?"),
        ("combiner=3", "combiner is a section; set one of its keys, such as combiner.projection_dim"),
        ("seed", "must be KEY=VALUE, such as seed=1"),
        ("=1", "unknown key; valid keys here are dataset, "),
        ("seed.x=1", "unknown key; did you mean 'seed'?"),
        ("combiner.levels=[cat", "is not YAML"),
        ("workspace=", "must be a path, not an empty value"),
        ("seed=\udcff", "has a character that is not allowed in YAML"),
    ],
)
def test_a_wrong_override_is_quoted(complaint: Complaint, override: str, message: str) -> None:
    line = complaint("dataset: cirr\n", override)
    assert line.startswith(f"--set {printable(override)}: {message}")


def test_synonyms_lead_to_keys_that_exist() -> None:
    paths = [tuple(key.split(".")) for key in KEYS]
    for word, meant in SYNONYMS.items():
        name = tuple(meant.split("."))
        assert any(path[-len(name) :] == name or path[:-1] == name for path in paths), word
        assert word not in {path[-1] for path in paths} or "." in meant, f"{word} is a key itself"


def test_the_last_override_of_a_key_wins(load: Load) -> None:
    text = "dataset: fashion\nfinetune:\ncombiner:\n  epochs: ten\n"
    profile = load(
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


def test_an_override_completes_an_empty_file(load: Load) -> None:
    assert load("", "dataset=shoes").dataset == "shoes"


def test_overriding_an_aliased_section_keeps_the_other(load: Load) -> None:
    text = "dataset: cirr\nfinetune: &s {epochs: 5}\ncombiner: *s\n"
    profile = load(text, "combiner.epochs=7")
    assert (profile.finetune.epochs, profile.combiner.epochs) == (5, 7)


def test_levels_are_put_in_order(load: Load) -> None:
    profile = load("dataset: cirr\ncombiner: {levels: [hybrid, sum], sscl: [high, mid]}\n")
    assert profile.combiner.levels == ("sum", "hybrid")
    assert profile.combiner.sscl == ("mid", "high")


def test_every_problem_is_reported_at_once(complaints: Complaints) -> None:
    text = "dataset: ciir\nsed: 1\nfinetune:\n  epochs: 0\n  epochs: 0\ncombiner:\n  levels: [sum]\n  sscl: []\n"
    assert complaints(text, "device=gpu", "wrkspace=x") == [
        f"mlcl.yaml:1: dataset: must be one of {KNOWN}, not 'ciir'; did you mean 'cirr'?",
        "mlcl.yaml:2: sed: unknown key; did you mean 'seed'?",
        "mlcl.yaml:5: finetune.epochs: duplicate key, first defined on line 4",
        "mlcl.yaml:5: finetune.epochs: must be a positive integer, not 0",
        "mlcl.yaml:7: combiner.levels: must have cat or hybrid: without them there is nothing to train",
        "--set wrkspace=x: unknown key; did you mean 'workspace'?",
        "--set device=gpu: must be one of auto, cuda, cpu, not 'gpu'; did you mean 'cpu'?",
    ]


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
def test_a_contradiction_is_reported_at_a_key_that_was_written(
    complaint: Complaint, text: str, overrides: list[str], message: str
) -> None:
    assert complaint(f"dataset: cirr\n{text}", *overrides) == message


def test_settings_that_only_look_contradictory_load(load: Load) -> None:
    load("dataset: cirr\ncombiner: {select_by: geometric, levels: [cat], sscl: [mid], validate_every: 1000}\n")
    load("dataset: shoes\ncombiner: {select_by: auto, levels: [hybrid]}\n")
