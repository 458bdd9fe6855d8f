"""`mlcl index`: what is new or changed is encoded, the rest is skipped, and nothing is lost."""

import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import Mlcl, Outcome
from PIL import Image
from shop import assert_same_rows, product, shop, stored, write_products
from torch.nn.functional import normalize
from world import picture, tiny_clip

from mlcl_cli.features.store import FeatureStore
from mlcl_cli.images.decode import open_image
from mlcl_cli.images.transforms import Transform, preprocess_pixels
from mlcl_cli.models.compute import Compute
from mlcl_cli.models.encoder import Encoder
from mlcl_cli.models.weights import load_clip
from mlcl_cli.signals import EXIT_CODE, interruptible
from mlcl_cli.stores import lance_index, searching
from mlcl_cli.stores.store import MIN_RECALL

COUNT = 12


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return shop(tmp_path, COUNT)


def counts(outcome: Outcome) -> dict[str, int]:
    return {
        key: outcome.json[key]
        for key in ("added", "updated", "unchanged", "removed", "encoded", "bad")
        if outcome.json[key]
    }


def index(mlcl: Mlcl, *options: str) -> Outcome:
    return mlcl("index", "products.csv", "--json", *options)


def test_index_stores_every_row_with_its_features(mlcl: Mlcl, folder: Path) -> None:
    outcome = index(mlcl)
    assert counts(outcome) == {"added": COUNT, "encoded": COUNT}
    assert (outcome.json["rows"], outcome.json["current"], outcome.json["index"]) == (COUNT, True, None)
    rows = stored(folder)
    encoder = Encoder(load_clip(folder / "clip.pt"), Compute(torch.device("cpu"), None))
    transform = Transform("targetpad", 1.25, encoder.size)
    for number in range(COUNT):
        row, expected = rows[f"sku{number}"], product(number)
        assert (row["position"], row["product"]) == (number, row["id"])
        assert (row["field.price"], row["field.color"]) == (expected["price"], expected["color"])
        image = open_image(folder / expected["image"])
        with torch.no_grad():
            raw = encoder.encode_images(preprocess_pixels(transform(image)[None]))[0]
        np.testing.assert_allclose(row["vector"], normalize(raw, dim=-1), atol=2e-3)
        assert row["norm"] == pytest.approx(float(raw.norm()), rel=1e-4)
        assert Image.open(io.BytesIO(row["thumbnail"])).size == image.size


def test_second_run_encodes_and_writes_nothing(mlcl: Mlcl, folder: Path) -> None:
    index(mlcl)
    before = stored(folder)
    assert counts(index(mlcl)) == {"unchanged": COUNT}
    assert stored(folder) == before


def test_touched_images_are_not_encoded_again(mlcl: Mlcl, folder: Path) -> None:
    index(mlcl)
    before = stored(folder)
    for image in (folder / "photos").iterdir():
        os.utime(image, ns=(1, 1))
    assert counts(index(mlcl)) == {"unchanged": COUNT}
    after = stored(folder)
    assert {row["image_fingerprint"].split(":", 1)[1] for row in after.values()} <= {
        f"{size}:1" for size in {image.stat().st_size for image in (folder / "photos").iterdir()}
    }
    assert [row["vector"] for row in after.values()].sort() == [row["vector"] for row in before.values()].sort()


def test_changed_image_alone_is_encoded(mlcl: Mlcl, folder: Path) -> None:
    index(mlcl)
    before = stored(folder)
    picture(folder / "photos/3.jpg", 1000)
    assert counts(index(mlcl)) == {"updated": 1, "encoded": 1, "unchanged": COUNT - 1}
    after = stored(folder)
    assert {name for name in after if after[name]["vector"] != before[name]["vector"]} == {"sku3"}


def test_changed_fields_are_rewritten_without_encoding(mlcl: Mlcl, folder: Path) -> None:
    index(mlcl)
    before = stored(folder)
    rows = [product(number) for number in range(COUNT)]
    rows[4]["price"] = 99.5
    shutil.copy2(folder / "photos/5.jpg", folder / "photos/other.jpg")
    rows[5]["image"] = "photos/other.jpg"
    write_products(folder / "products.csv", rows)
    assert counts(index(mlcl)) == {"updated": 2, "unchanged": COUNT - 2}
    after = stored(folder)
    assert after["sku4"]["field.price"] == 99.5
    assert after["sku5"]["image"] != before["sku5"]["image"]
    assert all(after[name]["vector"] == before[name]["vector"] for name in after)
    assert all(after[name]["thumbnail"] == before[name]["thumbnail"] for name in after)


def test_columns_come_and_go_without_encoding(mlcl: Mlcl, folder: Path) -> None:
    index(mlcl)
    rows = [
        {"id": row["id"], "image": row["image"], "price": row["price"], "brand": "b"}
        for row in map(product, range(COUNT))
    ]
    write_products(folder / "products.csv", rows)
    assert counts(index(mlcl)) == {"updated": COUNT}
    assert {(row["field.brand"], row["field.color"]) for row in stored(folder).values()} == {("b", None)}


def test_sync_removes_what_the_table_no_longer_has(mlcl: Mlcl, folder: Path) -> None:
    index(mlcl)
    write_products(folder / "products.csv", [product(number) for number in range(2, COUNT)])
    assert counts(index(mlcl)) == {"unchanged": COUNT - 2}
    assert len(stored(folder)) == COUNT
    outcome = index(mlcl, "--sync")
    assert counts(outcome) == {"unchanged": COUNT - 2, "removed": 2}
    assert "Removing 2 rows" in outcome.err
    assert stored(folder).keys() == {f"sku{number}" for number in range(2, COUNT)}


def test_sync_refuses_to_remove_many_rows(mlcl: Mlcl, folder: Path) -> None:
    index(mlcl)
    write_products(folder / "products.csv", [product(number) for number in range(COUNT - 3)])
    outcome = index(mlcl, "--sync")
    assert outcome.code == 3
    assert "3 of 12 rows are not in products.csv any more" in outcome.err
    assert "add --force" in outcome.err
    assert len(stored(folder)) == COUNT
    assert counts(index(mlcl, "--sync", "--force"))["removed"] == 3
    assert len(stored(folder)) == COUNT - 3


def test_unreadable_images_stop_the_command_after_all_others(mlcl: Mlcl, folder: Path) -> None:
    (folder / "photos/0.jpg").unlink()
    (folder / "photos/7.jpg").write_text("no image")
    outcome = index(mlcl)
    assert outcome.code == 3
    assert "2 images missing or unreadable" in outcome.err
    assert "(missing; " in outcome.err
    assert "line 9)" in outcome.err
    listed = json.loads((folder / "work/catalogs/default.bad_images.json").read_text())
    assert [image["id"] for image in listed] == ["sku0", "sku7"]
    picture(folder / "photos/0.jpg", 0)
    outcome = index(mlcl, "--set", "bad_images=drop")
    assert counts(outcome) == {"added": 1, "encoded": 1, "unchanged": COUNT - 2, "bad": 1}
    assert "1 image could not be read" in outcome.err
    assert stored(folder).keys() == {f"sku{number}" for number in range(COUNT) if number != 7}


def test_row_keeps_its_vector_while_its_image_is_unreadable(mlcl: Mlcl, folder: Path) -> None:
    index(mlcl)
    before = stored(folder)
    (folder / "photos/0.jpg").write_text("no image")
    assert counts(index(mlcl, "--sync", "--set", "bad_images=drop")) == {"unchanged": COUNT - 1, "bad": 1}
    assert stored(folder) == before


def test_id_that_occurs_twice_is_an_error(mlcl: Mlcl, folder: Path) -> None:
    write_products(folder / "products.csv", [product(number) for number in (*range(COUNT), 3)])
    outcome = index(mlcl)
    assert outcome.code == 3
    assert "sku3" in outcome.err
    assert "line 14" in outcome.err


def test_value_of_another_type_than_the_catalog_has_is_an_error_with_its_line(mlcl: Mlcl, folder: Path) -> None:
    mlcl("index", "products.csv")
    before = stored(folder)
    changes = {3: {"price": "cheap"}}
    write_products(folder / "products.csv", [product(number) | changes.get(number, {}) for number in range(6)])
    outcome = mlcl("index", "products.csv")
    assert outcome.code == 3
    assert "products.csv, line 5: the catalog stores 'price' as numbers, so 'cheap' does not fit" in outcome.err
    assert stored(folder) == before


def test_a_fraction_in_a_catalog_of_whole_numbers_goes_into_a_new_catalog(mlcl: Mlcl, folder: Path) -> None:
    write_products(folder / "products.csv", [product(number) | {"price": number} for number in range(2)])
    index(mlcl)
    write_products(folder / "products.csv", [product(number) for number in range(2)])
    outcome = mlcl("index", "products.csv")
    assert outcome.code == 3
    assert "'price' as whole numbers, since its first rows had no fractions, so 0.5 does not fit" in outcome.err
    assert "--catalog NAME" in outcome.err
    assert counts(index(mlcl, "--catalog", "new"))["added"] == 2
    assert stored(folder, "new")["sku1"]["field.price"] == 0.5


def test_a_mistake_in_the_table_shows_before_torch_is_loaded(folder: Path) -> None:
    (folder / "wrong.csv").write_text("id,image\n1,a.jpg\n1,b.jpg\n")
    code = "import sys\nfrom mlcl_cli.__main__ import main\ntry: main()\nfinally: print('torch' in sys.modules)"
    command = [sys.executable, "-c", code, "index", "wrong.csv"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert "repeats id '1'" in done.stderr
    assert (done.returncode, done.stdout) == (3, "False\n")


def test_new_clip_is_built_beside_and_switched_to(mlcl: Mlcl, folder: Path) -> None:
    first = index(mlcl).json
    before = stored(folder)
    tiny_clip(folder / "clip.pt", seed=1)
    half = [product(number) for number in range(COUNT // 2)]
    write_products(folder / "half.csv", half)
    outcome = mlcl("index", "half.csv", "--json")
    assert not outcome.json["current"]
    assert f"{COUNT - len(half)} rows" in outcome.err
    assert "previous CLIP" in outcome.err
    assert stored(folder) == before
    second = index(mlcl)
    assert counts(second) == {"added": COUNT - len(half), "unchanged": len(half), "encoded": COUNT - len(half)}
    assert second.json["current"]
    assert second.json["encoder"] != first["encoder"]
    after = stored(folder)
    assert after.keys() == before.keys()
    assert all(after[name]["vector"] != before[name]["vector"] for name in after)


def test_sync_lets_a_new_clip_leave_rows_out(mlcl: Mlcl, folder: Path) -> None:
    index(mlcl)
    tiny_clip(folder / "clip.pt", seed=1)
    write_products(folder / "products.csv", [product(number) for number in range(COUNT - 3)])
    assert index(mlcl, "--sync").code == 3
    assert len(stored(folder)) == COUNT
    assert index(mlcl, "--sync", "--force").json["current"]
    assert len(stored(folder)) == COUNT - 3


def test_other_vectors_and_transforms_are_other_tables(mlcl: Mlcl, folder: Path) -> None:  # noqa: ARG001
    encoders = [
        index(mlcl, *options).json["encoder"]
        for options in ([], ["--set", "catalog.vectors=fp32"], ["--set", "image.transform=clip"])
    ]
    assert len(set(encoders)) == 3


def test_an_index_is_built_where_the_profile_or_many_rows_ask_for_it(
    mlcl: Mlcl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop(tmp_path, count := 40)
    monkeypatch.setattr(lance_index, "FEWEST_ROWS", count)
    assert index(mlcl).json["index"] is None
    outcome = index(mlcl, "--set", "catalog.search=index")
    built = outcome.json["index"]
    assert built["rows"] == count
    assert built["recall"] >= MIN_RECALL
    assert f"Index on {count} rows, built in " in outcome.err
    assert f"recall@10 {built['recall']:.3f} on held-out rows" in outcome.err
    monkeypatch.setattr(searching, "MAX_EXACT_ON_CPU", count - 1)
    assert index(mlcl, "--catalog", "many").json["index"]["rows"] == count
    assert index(mlcl, "--catalog", "exact", "--set", "catalog.search=exact").json["index"] is None


def test_catalogs_with_different_names_are_apart(mlcl: Mlcl, folder: Path) -> None:
    index(mlcl)
    write_products(folder / "products.csv", [product(0)])
    assert index(mlcl, "--catalog", "other").json["rows"] == 1
    assert len(stored(folder)) == COUNT
    assert len(stored(folder, "other")) == 1


@pytest.mark.parametrize("seed", range(3))
def test_after_any_edits_the_table_equals_a_new_one(mlcl: Mlcl, folder: Path, seed: int) -> None:
    draw = random.Random(seed)
    numbers, edits, fresh = [*range(COUNT)], {}, COUNT
    for _ in range(3):
        index(mlcl, "--sync", "--force")
        for _ in range(draw.randrange(1, 5)):
            action = draw.randrange(4)
            if action == 0 and len(numbers) > 1:
                numbers.remove(draw.choice(numbers))
            elif action == 1:
                picture(folder / f"photos/{fresh}.jpg", fresh)
                numbers.append(fresh)
                fresh += 1
            elif action == 2:
                picture(folder / f"photos/{draw.choice(numbers)}.jpg", draw.randrange(10_000))
            else:
                edits[draw.choice(numbers)] = draw.randrange(100) + 0.5
        rows = [product(number) | ({"price": edits[number]} if number in edits else {}) for number in numbers]
        write_products(folder / "products.csv", rows)
    index(mlcl, "--sync", "--force")
    index(mlcl, "--catalog", "new")
    old, new = stored(folder), stored(folder, "new")
    for row in (*old.values(), *new.values()):
        row.pop("position")  # a row keeps its own until something else of it changes
    assert_same_rows(old, new)


def test_ctrl_c_commits_what_is_encoded(mlcl: Mlcl, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, batches = FeatureStore.encode_files, []

    def cut(*arguments: Any) -> Iterator[object]:
        for batch in real(*arguments):
            batches.append(batch)
            yield batch
            if len(batches) == 5:
                os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch, interruptible():
        patch.setattr(FeatureStore, "encode_files", cut)
        outcome = index(mlcl, "--set", "clip.encode_batch=1")
    assert outcome.code == EXIT_CODE
    assert "stopped by Ctrl-C. 5 rows stored; run the same command again to go on" in outcome.err
    assert counts(index(mlcl)) == {"unchanged": 5, "added": COUNT - 5, "encoded": COUNT - 5}
    assert len(stored(folder)) == COUNT


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--shard", "4/4"], "--shard: must be I/N with I from 0 to N - 1, as 0/4, not '4/4'"),
        (["--shard", "all"], "--shard: must be I/N"),
        (["--columns", "sku"], "--columns: expected pairs such as id=sku"),
        (["--columns", "id=a,id=b"], "--columns: sets id twice"),
        (["--shard", "0/2", "--ray", "local"], "--shard and --ray exclude each other"),
        (["--store", "mysql"], "--store mysql: must be lancedb"),
        (["--catalog", "a/b"], "--catalog a/b: must consist of letters"),
    ],
)
def test_wrong_options_are_usage_errors(mlcl: Mlcl, folder: Path, options: list[str], message: str) -> None:  # noqa: ARG001
    outcome = index(mlcl, *options)
    assert outcome.code == 2
    assert message in outcome.err
