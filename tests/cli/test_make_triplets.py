"""`mlcl make-triplets` on tables in every format, and what it refuses."""

import csv
import json
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import Mlcl, Outcome

from mlcl_cli.data.table_files import TableFile

COMMAND = ("make-triplets", "products.csv", "--attributes", "color,sleeve,material", "-o", "triplets.csv")
COLUMNS = ("reference", "target", "caption", "split")


def catalog(folder: Path, size: int = 200, name: str = "products.csv") -> Path:
    draw = random.Random(0)
    rows = [
        {
            "image": f"photos/{number}.jpg",
            "color": draw.choice(["red", "blue", "green"]),
            "sleeve": draw.choice(["long", "short", "sleeveless"]),
            "material": draw.choice(["wool", "silk"]),
            "category": draw.choice(["shirt", "dress"]),
        }
        for number in range(size)
    ]
    path = folder / name
    if path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return path


def triplets(path: Path) -> list[tuple[str, tuple[str, ...], str, str]]:
    rows = [row for _, row in TableFile(path).rows(COLUMNS)]
    assert TableFile(path).columns == COLUMNS
    return [(reference, targets, caption, split) for (reference,), targets, (caption,), (split,) in rows]


def test_table_agrees_with_the_result_and_no_image_is_in_both_splits(mlcl: Mlcl, tmp_path: Path) -> None:
    catalog(tmp_path)
    options = ("--within", "category", "--val-fraction", "0.4", "--max-targets", "9")
    result = mlcl(*COMMAND, *options, "--json").json
    rows = triplets(tmp_path / "triplets.csv")
    with (tmp_path / "products.csv").open(encoding="utf-8", newline="") as file:
        products = {row["image"]: row for row in csv.DictReader(file)}
    changed, values, images = Counter[str](), Counter[tuple[str, str]](), {"train": set[str](), "val": set[str]()}
    for reference, targets, caption, split in rows:
        images[split] |= {reference, *targets}
        for target in targets:
            (attribute,) = (key for key in COLUMNS_OF_PRODUCTS if products[reference][key] != products[target][key])
            assert products[target][attribute] in caption
        changed[attribute] += 1
        values[attribute, products[targets[0]][attribute]] += 1
    assert images["train"]
    assert images["val"]
    assert not images["train"] & images["val"]
    assert result["triplets"] == Counter(split for *_, split in rows)
    assert result["changes"] == changed
    assert {(name, value): n for name, counts in result["values"].items() for value, n in counts.items()} == values
    assert max(Counter(reference for reference, *_ in rows).values()) == 4


COLUMNS_OF_PRODUCTS = ("color", "sleeve", "material", "category")


@pytest.mark.parametrize("suffix", [".tsv", ".jsonl", ".parquet"])
def test_every_format_gives_the_same_triplets(mlcl: Mlcl, tmp_path: Path, suffix: str) -> None:
    catalog(tmp_path)
    catalog(tmp_path, name=f"products{suffix}")
    assert mlcl(*COMMAND, "--max-targets", "20").code == 0
    other = ("make-triplets", f"products{suffix}", *COMMAND[2:-1], "other.tsv", "--max-targets", "20")
    assert mlcl(*other).code == 0
    assert triplets(tmp_path / "triplets.csv") == triplets(tmp_path / "other.tsv")


def test_result_does_not_depend_on_the_hash_seed(tmp_path: Path) -> None:
    catalog(tmp_path)
    written = []
    for hash_seed in ("0", "1"):
        command = [sys.executable, "-m", "mlcl_cli", *COMMAND, "--changes", "2", "--max-targets", "20"]
        subprocess.run(command, cwd=tmp_path, env={**os.environ, "PYTHONHASHSEED": hash_seed}, check=True)
        written.append((tmp_path / "triplets.csv").read_bytes())
    assert written[0] == written[1]


def test_seed_changes_the_table_and_the_same_seed_repeats_it(mlcl: Mlcl, tmp_path: Path) -> None:
    catalog(tmp_path)
    written = []
    for seed in ("0", "0", "1"):
        assert mlcl(*COMMAND, "--max-targets", "20", "--seed", seed).code == 0
        written.append((tmp_path / "triplets.csv").read_bytes())
    assert written[0] == written[1] != written[2]


def test_people_read_what_was_made_and_what_was_not_used(mlcl: Mlcl, tmp_path: Path) -> None:
    path = catalog(tmp_path)
    lines = path.read_text().splitlines()
    path.write_text(
        "\n".join([*lines, "photos/plain.jpg,,short,wool,shirt", "photos/rare.jpg,pink,long,tin,hat"]) + "\n"
    )
    outcome = mlcl(*COMMAND, "--within", "category")
    assert outcome.code == 0
    for text in ("color", "sleeveless", "silk", "from 202 products", "triplets in train"):
        assert text in outcome.out
    assert "Not used: 1 product without a value for color" in outcome.out
    assert "without a counterpart" in outcome.out
    assert "changes of sleeve with too many equally right targets" in outcome.out


def test_odd_names_and_values_read_back_unchanged(mlcl: Mlcl, tmp_path: Path) -> None:
    names = ['["a.jpg"]', "a\rb\n.jpg", 'quote".jpg', "comma,.jpg", " space .jpg", "漢字\u2028.jpg"]
    values = ['["x"]', "[y", '"', ",", "é", "漢字"]
    table = tmp_path / "products.jsonl"
    rows = [{"image": name, "color": value} for name, value in zip(names, values, strict=True)]
    table.write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "templates.yaml").write_text("color: ['{{ new }}']")
    options = ("--attributes", "color", "--templates", "templates.yaml", "--per-product", "9", "--val-fraction", "0")
    assert mlcl("make-triplets", "products.jsonl", *options, "-o", "triplets.csv").code == 0
    expected = {(one, (two,), values[names.index(two)], "train") for one in names for two in names if one != two}
    assert {*triplets(tmp_path / "triplets.csv")} == expected


def test_templates_of_ones_own_are_used_and_unused_ones_named(mlcl: Mlcl, tmp_path: Path) -> None:
    catalog(tmp_path)
    (tmp_path / "french.yaml").write_text("default: ['{{ attribute }} : {{ new }}']\ncolour: ['{{ new }}']\n")
    outcome = mlcl(*COMMAND, "--max-targets", "20", "--templates", "french.yaml")
    assert outcome.code == 0
    assert "french.yaml, line 2: 'colour' is not in --attributes; did you mean 'color'?" in outcome.err
    assert all(" : " in caption for _, _, caption, _ in triplets(tmp_path / "triplets.csv"))


def test_relative_changes_are_made_and_counted(mlcl: Mlcl, tmp_path: Path) -> None:
    catalog(tmp_path)
    (tmp_path / "templates.yaml").write_text(
        "default: ['{{ attribute }} {{ new }}']\n"
        "relative:\n  length: {step: sleeve, values: [sleeveless, short, long], more: [longer], less: [shorter]}\n"
    )
    outcome = mlcl(*COMMAND, "--max-targets", "20", "--templates", "templates.yaml", "--json")
    changes, values = outcome.json["changes"], outcome.json["values"]
    assert [*changes] == ["color", "sleeve", "material", "length, more", "length, less"]
    captions = Counter(caption for _, _, caption, _ in triplets(tmp_path / "triplets.csv"))
    assert (changes["length, more"], changes["length, less"]) == (captions["longer"], captions["shorter"])
    assert min(changes.values()) > 50
    assert sum(values["sleeve"].values()) == sum(changes[part] for part in ("sleeve", "length, more", "length, less"))


def test_empty_validation_split_is_a_warning(mlcl: Mlcl, tmp_path: Path) -> None:
    catalog(tmp_path, size=12)
    outcome = mlcl(*COMMAND, "--val-fraction", "0.05")
    assert outcome.code == 0
    assert "val is empty" in outcome.err


def refused(outcome: Outcome, code: int, *words: str) -> None:
    assert outcome.code == code, outcome.err
    assert outcome.out == ""
    (line,) = outcome.err.splitlines()
    assert line.startswith("error: ")
    assert all(word in line for word in words), line


@pytest.mark.parametrize(
    ("changed", "code", "words"),
    [
        ({"--attributes": "colour,sleeve"}, 3, ["no column 'colour'", "Set --attributes, probably to 'color'"]),
        ({"--image": "img"}, 3, ["no column 'img'", "Set --image, probably to 'image'"]),
        ({"--within": "categories"}, 3, ["no column 'categories'", "Set --within, probably to 'category'"]),
        ({"--attributes": ","}, 2, ["--attributes"]),
        ({"--attributes": "color,color"}, 2, ["--attributes", "'color' twice"]),
        ({"--attributes": "color,image"}, 2, ["--attributes", "'image'", "--image"]),
        ({"--within": "color"}, 2, ["--attributes", "'color'", "--within"]),
        ({"--attributes": "color", "--changes": "2"}, 2, ["--changes", "--attributes names 1"]),
        ({"--max-targets": "1", "--attributes": "material"}, 3, ["every change", "1 product ", "--max-targets"]),
        ({"-o": "triplets.json"}, 2, ["triplets.json: must end in .csv or .tsv"]),
        ({"-o": "products.csv"}, 2, ["products.csv: already exists and is not a table of triplets"]),
        ({"--templates": "none.yaml"}, 3, ["none.yaml: does not exist", "--templates"]),
    ],
)
def test_wrong_options_are_one_line_and_write_nothing(
    mlcl: Mlcl, tmp_path: Path, changed: dict[str, str], code: int, words: list[str]
) -> None:
    catalog(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    options = {"--attributes": "color,sleeve,material", "-o": "triplets.csv"} | changed
    refused(
        mlcl("make-triplets", "products.csv", *(word for option in options.items() for word in option)), code, *words
    )
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "image,color,size\na.jpg,red,1\nb.jpg,blue,2\n",
            ["no two products differ only in color or size", "--changes 2"],
        ),
        ("image,color,size\na.jpg,red,1\nb.jpg,blue\n", ["line 3", "expected 3 cells, got 2"]),
        ("image,color,size\na.jpg,red,1\nb.jpg,red,2\n", ["all products have the same color, 'red'"]),
        ("image,color,size\na.jpg,red,1\na.jpg,blue,1\n", ["line 3", "repeats image 'a.jpg'", "line 2"]),
        ('image,color,size\n"[""a"", ""b""]",red,1\nb.jpg,blue,1\n', ["line 2", "expected one image, got 2"]),
        ("image,color,size\n", ["0 products"]),
    ],
)
def test_unusable_table_is_one_line_and_writes_nothing(mlcl: Mlcl, tmp_path: Path, text: str, words: list[str]) -> None:
    (tmp_path / "products.csv").write_text(text)
    options: tuple[Any, ...] = ("--attributes", "color,size", "-o", "triplets.csv", "--val-fraction", "0")
    refused(mlcl("make-triplets", "products.csv", *options), 3, "products.csv", *words)
    assert [path.name for path in tmp_path.iterdir()] == ["products.csv"]


def test_missing_table_is_named(mlcl: Mlcl) -> None:
    refused(mlcl(*COMMAND), 3, "products.csv: does not exist")
