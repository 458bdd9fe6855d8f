"""The profile's section of data of one's own."""

from pathlib import Path

import pytest

from mlcl_cli.config import Profile, dump, load_profile
from mlcl_cli.data.datasets import DATASETS
from mlcl_cli.errors import UsageError

OWN = """\
dataset: sneakers
datasets:
  sneakers:
    images: photos
    triplets: t.csv
"""


def load(folder: Path, more: str = "", *overrides: str) -> Profile:
    (folder / "mlcl.yaml").write_text(OWN + more)
    return load_profile(folder / "mlcl.yaml", overrides)


def complaint(folder: Path, more: str = "", *overrides: str) -> str:
    with pytest.raises(UsageError) as error:
        load(folder, more, *overrides)
    return str(error.value)


def test_a_data_set_needs_a_folder_and_a_table(tmp_path: Path) -> None:
    profile = load(tmp_path)
    assert profile.root == tmp_path / "t.csv"
    assert profile.definition.name == "sneakers"
    assert profile.protocol.name == "sneakers-noref@1,10,50"
    assert profile.protocol.any_target


def test_overrides_reach_into_a_data_set(tmp_path: Path) -> None:
    profile = load(tmp_path, "", "datasets.sneakers.val_fraction=0.2", "datasets.sneakers.columns.target=[a, b]")
    own = profile.datasets["sneakers"]
    assert (own.val_fraction, own.columns.target, own.images) == (0.2, ("a", "b"), tmp_path / "photos")


def test_the_resolved_profile_is_the_same_profile(tmp_path: Path) -> None:
    profile = load(
        tmp_path, '    columns: {reference: "price in $$", caption: [a, b]}\n    protocol: {map_at: [10, 5]}\n'
    )
    assert profile.datasets["sneakers"].columns.reference == "price in $"
    (tmp_path / "again.yaml").write_text(dump(profile))
    assert load_profile(tmp_path / "again.yaml") == profile


def test_protocols_that_do_not_compare_have_different_names(tmp_path: Path) -> None:
    names = {
        load(tmp_path, f"    protocol: {protocol}\n").protocol.name
        for protocol in (
            "{}",
            "{recall_at: [1]}",
            "{exclude_reference: false}",
            "{per_category: true}",
            "{captions: alternatives}",
        )
    }
    assert len(names) == 5


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("datasets.sneakers.val_fracton=0.2", "did you mean 'datasets.sneakers.val_fraction'?"),
        ("datasets.sneakers.columns.targets=x", "did you mean 'datasets.sneakers.columns.target'?"),
        ("datasets.sneakers.columns=x", "datasets.sneakers.columns is a section; set one of its keys, such as"),
        ("datasets.sneaker.val_fraction=0.2", "the profile has no datasets.sneaker; did you mean 'sneakers'?"),
        ("datasets.sneakers.val_fraction=1", "must be a number between 0 and 1, not 1"),
        ("datasets.sneakers.images=", "must be a path, not an empty value"),
        ("datasets.sneakers.columns.target=[]", "must be a name or a list of names, not []"),
        ("datasets.sneakers.columns.id=3", "must be text, not 3"),
        ("datasets.sneakers.protocol.recall_at=[0]", "must be a list of positive integers, such as [1, 10], not 0"),
        ("datasets.sneakers.protocol.captions=join", "must be one of joined, alternatives, not 'join'; did you mean"),
        ("dataset=sneaker", f"{[*DATASETS][-1]}, sneakers, not 'sneaker'; did you mean 'sneakers'?"),
    ],
)
def test_a_wrong_override_has_one_line(tmp_path: Path, override: str, message: str) -> None:
    text = complaint(tmp_path, "", override)
    assert text.startswith(f"--set {override}: ")
    assert message in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            "    val_fracton: 0.2\n",
            ":6: datasets.sneakers.val_fracton: unknown key; did you mean 'datasets.sneakers.val",
        ),
        ("    columns: {refrence: a}\n", ":6: datasets.sneakers.columns.refrence: unknown key; did you mean 'datasets"),
        ("  hats: {images: a}\n", ":6: datasets.hats.triplets: is required: a path"),
        (
            "  shoes: {images: a, triplets: b.csv}\n",
            "has shoes, which is the name of a built-in data set; choose another",
        ),
        ("  my hats: {images: a, triplets: b.csv}\n", "has the name 'my hats'; use letters, digits, - and _"),
        ("  sneakers: {images: a, triplets: b.csv}\n", ":6: datasets.sneakers: duplicate key, first defined on line 3"),
    ],
)
def test_a_wrong_section_names_its_line(tmp_path: Path, more: str, message: str) -> None:
    assert message in complaint(tmp_path, more)
