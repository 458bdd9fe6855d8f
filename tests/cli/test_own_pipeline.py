"""A folder of pictures and one table are enough: the whole pipeline, through the real command line."""

import csv
import json
import os
import random
import shutil
import signal
from collections.abc import Iterable
from pathlib import Path

import pytest
from command_line import Mlcl, Outcome
from typer.testing import CliRunner
from world import picture, tiny_clip

from mlcl_cli.cli.app import app
from mlcl_cli.config import load_profile
from mlcl_cli.training.loop import Trainer

IMAGES = 48
SMALL = (
    "clip.model=clip.pt", "device=cpu", "finetune.epochs=1", "finetune.batch_size=8", "combiner.epochs=2",
    "combiner.batch_size=8", "combiner.projection_dim=8", "combiner.hidden_dim=16", "combiner.augmented_views=1",
)  # fmt: skip
SETTINGS = [part for setting in SMALL for part in ("--set", setting)]


def write_table(path: Path, header: list[str], rows: Iterable[Iterable[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def pictures(folder: Path, count: int = IMAGES) -> list[str]:
    names = [f"shoe {number:02}.png" for number in range(count)]
    for number, name in enumerate(names):
        picture(folder / name, number)
    return names


def sneakers(folder: Path) -> Path:
    """Pictures, and one table of triplets: some with several targets, none with a split."""
    names = pictures(folder / "photos")
    draw = random.Random(5)
    rows = []
    for start in range(0, IMAGES, 4):  # a component of four images each
        group = names[start : start + 4]
        for first in range(3):
            reference, target, other = (group[(first + step) % 4] for step in range(3))
            targets = json.dumps([target, other]) if first else target
            rows.append([reference, targets, draw.choice(["is red", "has laces, and is blue", "is\nlower"])])
    write_table(folder / "sneakers.csv", ["Reference Image", "target", "modifier"], rows)
    tiny_clip(folder / "clip.pt")
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a newcomer has after `init`, `finetune` and `train-combiner`."""
    folder = sneakers(tmp_path_factory.mktemp("sneakers"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLCL_PROFILE", raising=False)
        commands = (["init", "--from", "sneakers.csv"], ["finetune", *SETTINGS], ["train-combiner", *SETTINGS])
        for command in commands:
            result = CliRunner().invoke(app, command, catch_exceptions=False)
            assert result.exit_code == 0, result.stderr
            (folder / f"{command[0]}.out").write_text(result.stdout)
    return folder


def test_init_writes_what_it_found(trained: Path) -> None:
    text = (trained / "mlcl.yaml").read_text()
    for line in (
        "dataset: sneakers\n", "    images: photos\n", "    triplets: sneakers.csv\n", "    gallery: none ",
        "      reference: Reference Image\n", "      target: target\n", "      caption: modifier\n",
        "    # 36 rows; columns: 'Reference Image', 'target', 'modifier'\n", "      map_at: [5, 10]\n",
        "    # 48 of the first 48 images exist\n", "training triplets\n",
    ):  # fmt: skip
        assert line in text
    out = (trained / "init.out").read_text()
    assert out.endswith("Wrote mlcl.yaml. Next, run `mlcl check`.\n")


def test_every_command_works_on_a_folder_of_pictures_and_a_table(mlcl: Mlcl, trained: Path) -> None:
    checked = mlcl("check", "--json", *SETTINGS, folder=trained)
    assert checked.json["verdicts"] == {"finetune": "ok", "train-combiner": "ok", "evaluate": "ok"}
    evaluated = mlcl("evaluate", "--json", *SETTINGS, folder=trained).json
    assert evaluated["protocol"] == "sneakers-noref@1,10,50"
    assert evaluated["gallery"] == IMAGES
    assert {"recall@1", "recall@10", "recall@50", "recall_mean", "map@5", "map@10"} == evaluated["metrics"].keys()
    reported = mlcl("report", "--json", "--output", "report.html", folder=trained)
    assert reported.code == 0, reported.err
    assert "sneakers" in (trained / "report.html").read_text()
    assert mlcl("train-combiner", "--dry-run", *SETTINGS, folder=trained).code == 0


def test_a_stopped_run_resumes(mlcl: Mlcl, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(trained, folder)
    longer = ("train-combiner", "--json", *SETTINGS, "--epochs", "3")
    whole = mlcl(*longer, folder=folder).json
    real = Trainer._step

    def step(self: Trainer, batch: object) -> None:
        if self.epoch == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        real(self, batch)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_step", step)
        assert mlcl(*longer, folder=folder).code == 75
    resumed = mlcl(*longer, "--resume", folder=folder).json
    assert resumed["metrics"] == whole["metrics"]
    assert resumed["run"] != whole["run"]


def init(mlcl: Mlcl, folder: Path, name: str = "triplets.csv", *more: str) -> tuple[Outcome, str]:
    outcome = mlcl("init", "--from", name, *more, folder=folder)
    profile = folder / "mlcl.yaml"
    return outcome, profile.read_text() if profile.exists() else ""


def test_init_guesses_by_content_and_says_so(mlcl: Mlcl, tmp_path: Path) -> None:
    names = pictures(tmp_path / "data" / "pics", 6)
    rows = [[names[n], names[n + 1], "make it red", "train" if n else "val", str(n)] for n in (0, 2, 3)]
    write_table(tmp_path / "triplets.csv", ["A", "B", "words", "phase", "no"], rows)
    outcome, text = init(mlcl, tmp_path)
    assert "    images: data/pics\n" in text
    assert "reference: A  # has file names; a guess by their order: reference and target may be swapped\n" in text
    assert "caption: words  # has free text\n" in text
    assert "# not used: 'phase', 'no'\n" in text
    assert "Look at datasets." in outcome.out
    assert ".columns.reference in it." in outcome.out


def test_init_leaves_to_set_what_it_cannot_tell(mlcl: Mlcl, tmp_path: Path) -> None:
    write_table(tmp_path / "triplets.csv", ["ref", "target", "note", "remark"], [["a", "b", "is red", "is blue"]])
    outcome, text = init(mlcl, tmp_path)
    assert "    images: # TODO: the first images, such as 'a', are in no folder below the table\n" in text
    assert "      caption: # TODO: one of 'note', 'remark'\n" in text
    assert ".images in it. Set datasets." in outcome.out
    refused = mlcl("check", folder=tmp_path)
    assert refused.code == 2
    assert "images: must be a path, not an empty value" in refused.err
    assert "columns.caption: must be a name or a list of names, not an empty value" in refused.err


def test_init_writes_paths_from_the_profile_on(mlcl: Mlcl, tmp_path: Path) -> None:
    names = pictures(tmp_path / "my data" / "images", 4)
    table = tmp_path / "my data" / "hats & caps.csv"
    rows = [[names[0], names[1], "is $5", "a"], [names[2], names[3], "x", "b"]]
    write_table(table, ["reference", "target", "caption", "source"], rows)
    (tmp_path / "profiles").mkdir()
    outcome = mlcl("init", "--from", str(table), "--output", "profiles/mlcl.yaml")
    text = (tmp_path / "profiles/mlcl.yaml").read_text()
    assert "dataset: hats-caps\n" in text
    assert "    images: ../my data/images\n" in text
    assert "      # not used: 'source'\n" in text
    assert "run `mlcl check --profile profiles/mlcl.yaml`" in outcome.out
    tiny_clip(tmp_path / "clip.pt")
    assert mlcl("check", "--json", "--profile", "profiles/mlcl.yaml", "--split", "val", *SETTINGS).code == 0


@pytest.mark.parametrize(
    ("file", "name"), [("shoes.csv", "my-shoes"), ("123.csv", "123"), ("true.csv", "true"), ("a\nb: #.csv", "a-b")]
)
def test_init_makes_a_valid_name_of_any_file_name(mlcl: Mlcl, tmp_path: Path, file: str, name: str) -> None:
    names = pictures(tmp_path / "images", 4)
    rows = [[names[0], names[1], "x"], [names[2], names[3], "x"]]
    write_table(tmp_path / file, ["reference", "target", "caption"], rows)
    init(mlcl, tmp_path, file)
    assert load_profile(tmp_path / "mlcl.yaml").dataset == name


def test_init_says_that_names_lack_their_extension(mlcl: Mlcl, tmp_path: Path) -> None:
    pictures(tmp_path / "images", 2)
    write_table(tmp_path / "triplets.csv", ["ref", "target", "text"], [["shoe 00", "shoe 01", "is red"]])
    _, text = init(mlcl, tmp_path)
    assert "in no folder below the table: the names lack their extension, .png\n" in text


def test_init_takes_a_gallery_table_if_there_is_just_one(mlcl: Mlcl, tmp_path: Path) -> None:
    names = pictures(tmp_path / "images", 8)
    rows = [[names[n], names[n + 1], "is red", "val" if n == 6 else "train", "7"] for n in (0, 2, 4, 6)]
    write_table(tmp_path / "triplets.csv", ["ref", "target", "text", "split", "id"], rows)
    write_table(tmp_path / "products.csv", ["photo", "price"], [[name, "3"] for name in names[4:]])
    _, text = init(mlcl, tmp_path)
    assert "    gallery: products.csv  # the only other table here with a column of these images; none: " in text
    assert "      image: photo\n" in text
    assert "      id: none  # the values of the column 'id' are not different in each row\n" in text
    assert "# 3 triplets in train, 1 triplet in val" in text
    tiny_clip(tmp_path / "clip.pt")
    checked = mlcl("check", "--json", *SETTINGS, "--set", "finetune.batch_size=2", "--set", "combiner.batch_size=2")
    assert checked.json["looked_at"]["gallery"] == "4 names"
    shutil.copy(tmp_path / "products.csv", tmp_path / "more.csv")
    _, text = init(mlcl, tmp_path, "triplets.csv", "--force")
    assert "    gallery: none  # one of 'more.csv', 'products.csv', if it lists what to rank\n" in text


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        (["a", "b", "c"], [["1", "2", "3"]], "has no column of reference images, target images or captions"),
        (["ref", "target", "text"], [], "has no rows. Choose a table with a triplet in each row"),
        (["ref;target;text"], [["a;b;c"]], "its cells are separated by ';'"),
    ],
)
def test_init_refuses_what_is_no_table_of_triplets(
    mlcl: Mlcl, tmp_path: Path, header: list[str], rows: list[list[str]], message: str
) -> None:
    write_table(tmp_path / "triplets.csv", header, rows)
    outcome, text = init(mlcl, tmp_path)
    assert (outcome.code, text) == (3, "")
    assert message in outcome.err
    assert len(outcome.err.splitlines()) == 1


def test_init_does_not_take_a_data_set_and_a_table(mlcl: Mlcl, tmp_path: Path) -> None:
    outcome, text = init(mlcl, tmp_path, "triplets.csv", "--dataset", "cirr")
    assert (outcome.code, text) == (2, "")
    assert "--from and --dataset exclude each other" in outcome.err


def test_check_names_lines_of_the_table_and_missing_images(mlcl: Mlcl, tmp_path: Path) -> None:
    names = pictures(tmp_path / "images", 6)
    rows = [[names[0], names[1], "is red", "train"]] * 2
    rows += [[names[0], "gone.png", "", "train"], [names[2], names[2], "is\nblue", "val"], [names[3], "", "x", "val"]]
    write_table(tmp_path / "triplets.csv", ["ref", "target", "text", "split"], rows)
    tiny_clip(tmp_path / "clip.pt")
    outcome, text = init(mlcl, tmp_path)
    assert "# 1 defect, the first: " in text
    assert f"1 defect, the first: {tmp_path / 'triplets.csv'}, line 7: has no target image" in outcome.out
    checked = mlcl("check", "--json", *SETTINGS)
    assert [(found["where"], found["what"]) for found in checked.findings("captions")] == [
        ("train, line 3", "repeats train, line 2"),
        ("train, line 4", "a caption is blank"),
        ("val, line 5", "the target is the reference: a miss if references are excluded"),
    ]
    (defect,) = checked.findings("annotations")
    assert defect["where"] == f"{tmp_path / 'triplets.csv'}, line 7"
    assert defect["what"] == "has no target image"
    (image,) = checked.findings("images")
    assert image["where"] == str(tmp_path / "images/gone.png")


def test_check_says_where_to_set_the_folder_if_no_image_exists(mlcl: Mlcl, tmp_path: Path) -> None:
    pictures(tmp_path / "images", 4)
    rows = [["shoe 00.png", "shoe 01.png", "x"], ["shoe 02.png", "shoe 03.png", "x"]]
    write_table(tmp_path / "triplets.csv", ["ref", "target", "text"], rows)
    init(mlcl, tmp_path)
    (tmp_path / "empty").mkdir()
    text = (tmp_path / "mlcl.yaml").read_text()
    name = text.split("dataset: ")[1].split()[0]
    tiny_clip(tmp_path / "clip.pt")
    checked = mlcl("check", "--json", *SETTINGS, "--set", f"datasets.{name}.images=empty")
    assert f"Set datasets.{name}.images to the folder" in checked.findings("images")[0]["remedy"]
    gone = mlcl("check", "--json", *SETTINGS, "--set", f"datasets.{name}.images=gone")
    assert gone.findings("annotations")[0]["what"] == "does not exist"


def test_each_category_is_scored_alone(mlcl: Mlcl, tmp_path: Path) -> None:
    names = pictures(tmp_path / "images", 8)
    rows = [
        [names[n], names[n + 1], "is red", "val" if n < 4 else "train", "hat" if n % 4 else "coat"]
        for n in range(0, 8, 2)
    ]
    write_table(tmp_path / "triplets.csv", ["ref", "target", "text", "split", "type"], rows)
    tiny_clip(tmp_path / "clip.pt")
    _, text = init(mlcl, tmp_path)
    (tmp_path / "mlcl.yaml").write_text(text.replace("per_category: false", "per_category: true"))
    result = mlcl("evaluate", "--json", "--combining-function", "sum", *SETTINGS).json
    assert result["gallery"] == {"coat": 4, "hat": 4}
    assert {"coat/recall@1", "hat/recall@1", "average/recall"} <= result["metrics"].keys()
