"""The demo's catalog: its tables agree with its annotations, and `make generated` works in short."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from generated import evaluate, experiment, make_triplets, mlcl, rows, table
from world import tiny_clip

from mlcl_cli.catalog.captions import Captions
from mlcl_cli.demo.catalog import draw_catalog, profile_text
from mlcl_cli.demo.vocabulary import KINDS, Replace, Step, Take
from mlcl_cli.workflows.make_triplets import read_captions


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's shoes with an untrained CLIP."""
    folder = tmp_path_factory.mktemp("demo")
    draw_catalog(folder, ["shoes"])
    tiny_clip(folder / "clip.pt")
    (folder / "mlcl.shoes.yaml").write_text(profile_text("shoes"))
    mlcl("prepare-shoes", "--profile", folder / "mlcl.shoes.yaml")
    return folder


def shrink(demo: Path, folder: Path, images: int = 150) -> Path:
    """A copy that lists only the first images, and the validation queries among them."""
    small = shutil.copytree(demo, folder, copy_function=shutil.copy2)
    shoes = small / "data/shoes"
    for name in ("products.csv", "gallery.csv"):
        (shoes / name).write_text("".join((shoes / name).read_text().splitlines(keepends=True)[: images + 1]))
    for split, name in (("train", "products.csv"), ("val", "gallery.csv")):
        kept = [row["image"] for row in rows(shoes / name)]
        listing, source = (shoes / f"annotations/{kind}.{split}.json" for kind in ("split", "triplet"))
        pairs = [{*map(record.get, ("ImageName", "ReferenceImageName"))} <= {*kept} for record in annotated(source)]
        assert any(pairs)
        listing.write_text(json.dumps(kept))
        source.write_text(json.dumps([record for record, keep in zip(annotated(source), pairs, strict=True) if keep]))
    header, *lines = (shoes / "queries.csv").read_text().splitlines(keepends=True)
    queries = [row["reference"] in kept and row["target"] in kept for row in rows(shoes / "queries.csv")]
    (shoes / "queries.csv").write_text(
        header + "".join(line for line, keep in zip(lines, queries, strict=True) if keep)
    )
    return small


def annotated(path: Path) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = json.loads(path.read_text())
    return records


def test_tables_hold_what_the_annotations_hold(demo: Path) -> None:
    shoes = demo / "data/shoes"
    for split, name in (("train", "products.csv"), ("val", "gallery.csv")):
        assert [row["image"] for row in rows(shoes / name)] == json.loads(
            (shoes / f"annotations/split.{split}.json").read_text()
        )
    triplets = [
        (record["ReferenceImageName"], record["ImageName"], record["RelativeCaption"], "val")
        for record in annotated(shoes / "annotations/triplet.val.json")
    ]
    assert sorted(tuple(row.values()) for row in rows(shoes / "queries.csv")) == sorted(triplets)


def test_nothing_of_validation_is_trained_on(demo: Path, tmp_path: Path) -> None:
    shoes = demo / "data/shoes"
    make_triplets(shoes, tmp_path / "triplets.csv", seed=0)
    made = rows(tmp_path / "triplets.csv")
    gallery = {row["image"] for row in rows(shoes / "gallery.csv")}
    train = [row for row in made if row["split"] == "train"]
    assert len(train) > 3000
    assert not gallery & {row[key] for row in train for key in ("reference", "target")}
    assert [row for row in made if row["split"] != "train"] == rows(shoes / "queries.csv")
    captions = {
        record["RelativeCaption"] for path in shoes.glob("annotations/triplet.*.json") for record in annotated(path)
    }
    assert not captions & {row["caption"] for row in train}


def test_no_template_is_worded_like_an_annotated_caption(demo: Path) -> None:
    """Not even for a part of a caption that describes two changes."""
    kind = KINDS["shoe"]
    captions = read_captions(demo / "data/shoes/captions.yaml", list(kind.attributes), is_own=True)
    for change in kind.changes:
        match change:
            case Replace():
                values = kind.attributes[change.replace]
                pairs = [(old, new) for old in values for new in values if old != new]
                words = {text.format(old=old, new=new) for text in change.captions for old, new in pairs}
            case Step():
                words = {*change.more, *change.less}
            case Take():
                words = {*change.captions}
        assert not words & all_captions(captions, list(kind.attributes.values()))


def all_captions(captions: Captions, values: list[tuple[str, ...]]) -> set[str]:
    return {
        template.render(new, old)
        for number, templates in enumerate(captions.templates)
        for template in templates
        for new in (values[number] if number < len(values) else [""])
        for old in (values[number] if number < len(values) else [""])
    }


@pytest.mark.timeout(300)
def test_short_experiment_ranks_the_same_queries_in_the_same_gallery(demo: Path, tmp_path: Path) -> None:
    small = shrink(demo, tmp_path / "small")
    (tmp_path / "work").mkdir()
    results = experiment(small, tmp_path / "work", seeds=2, epochs=2)
    assert {label: len(runs) for label, runs in results.items()} == {
        "combiner, generated triplets": 2,
        "element-wise sum": 1,
        "image only": 1,
        "text only": 1,
        "combiner, annotated triplets": 2,
    }
    own = ("--set", f"workspace={tmp_path / 'work'}", "--set", "clip.checkpoint=none")
    for label, function in (("element-wise sum", "sum"), ("image only", "image"), ("text only", "text")):
        assert results[label] == [
            evaluate("--profile", small / "mlcl.shoes.yaml", *own, "--combining-function", function)
        ]
    assert table(results).count(" ± ") == 8
