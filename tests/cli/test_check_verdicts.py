"""`mlcl check` judges each command, and finds what is wrong with a data set as a whole."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import Mlcl
from PIL import Image
from world import picture, world

ALL = ("finetune", "train-combiner", "evaluate", "submit-cirr")
TRAIN = "data/cirr/captions/cap.rc2.train.json"


def verdicts(*failing: str, of: tuple[str, ...] = ALL) -> dict[str, str]:
    return {command: "would fail" if command in failing else "ok" for command in of}


@pytest.fixture
def cirr(tmp_path: Path) -> Path:
    return world(tmp_path, "cirr")


def test_missing_training_split_is_a_note(mlcl: Mlcl, cirr: Path) -> None:
    (cirr / TRAIN).unlink()
    outcome = mlcl("check", "--json")
    assert outcome.json["verdicts"] == verdicts("finetune", "train-combiner")
    assert outcome.json["verdict"] == "sound"
    (finding,) = outcome.findings("annotations")
    assert finding["where"] == str(cirr / TRAIN)
    assert (finding["severity"], finding["commands"]) == ("note", ["finetune", "train-combiner"])
    text = mlcl("check").out
    assert "evaluate, submit-cirr: would work\nfinetune, train-combiner: would fail\n" in text
    assert mlcl("check", "--split", "train").code == 3


def test_split_without_images_is_one_finding(mlcl: Mlcl, cirr: Path) -> None:
    shutil.rmtree(cirr / "data/train")
    outcome = mlcl("check", "--json")
    assert outcome.json["verdicts"] == verdicts("finetune", "train-combiner")
    (finding,) = outcome.findings("images")
    assert finding["where"] == str(cirr / "data/train/7")
    shutil.rmtree(cirr / "data/dev")
    outcome = mlcl("check", "--json")
    assert outcome.code == 3
    assert len(outcome.findings("images")) == 2


def test_half_downloaded_training_split_is_an_error(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "fashioniq")
    (tmp_path / "data/captions/cap.shirt.train.json").unlink()
    outcome = mlcl("check", "--json")
    assert outcome.code == 3
    assert json.loads(outcome.out)["verdicts"] == verdicts("finetune", "train-combiner", of=ALL[:3])


def test_missing_folder_is_reported_once_with_the_remedy_of_evaluate(mlcl: Mlcl, cirr: Path) -> None:
    wrong = ("--set", "roots.cirr=elsewhere")
    outcome = mlcl("check", "--json", *wrong)
    (finding,) = outcome.findings("annotations")
    assert finding["commands"] == list(ALL)
    stderr = mlcl("evaluate", "--combining-function", "sum", "--quiet", *wrong).err
    assert f"{finding['where']}: {finding['what']}. {finding['remedy']}\n" in stderr
    assert mlcl("check", *wrong).out.count(str(cirr / "elsewhere")) == 1


def test_damaged_validation_split_stops_all_but_the_submission(mlcl: Mlcl, cirr: Path) -> None:
    (cirr / "data/cirr/captions/cap.rc2.val.json").write_text("[")
    outcome = mlcl("check", "--json")
    assert outcome.code == 3
    assert json.loads(outcome.out)["verdicts"] == verdicts(*ALL[:3])


def test_dropped_images_still_stop_the_submission(mlcl: Mlcl, cirr: Path) -> None:
    (cirr / "data/test1/test1-3-img0.png").unlink()
    outcome = mlcl("check", "--json", "--set", "bad_images=drop")
    assert outcome.code == 3
    assert json.loads(outcome.out)["verdicts"] == verdicts("submit-cirr")


def test_raw_shoes_can_be_prepared_but_not_trained_on(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "shoes")
    outcome = mlcl("check", "--json")
    assert outcome.code == 3
    assert json.loads(outcome.out)["verdicts"] == {"prepare-shoes": "ok", **verdicts(*ALL[:3], of=ALL[:3])}
    listed = tmp_path / "data/annotations/eval_im_names.txt"
    listed.write_text(listed.read_text() + "img_womens_clogs_99.jpg\n")
    verdict = json.loads(mlcl("check", "--json").out)["verdicts"]["prepare-shoes"]
    assert verdict == "would fail"
    listed.write_text(listed.read_text().replace("img_womens_clogs_99.jpg\n", ""))
    mlcl("prepare-shoes")
    assert mlcl("check", "--json").json["verdicts"] == verdicts(of=ALL[:3])


def edit(path: Path, change: Callable[[Any], object]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def test_name_with_different_files_in_two_splits_gives_wrong_figures(mlcl: Mlcl, cirr: Path) -> None:
    listing = cirr / "data/cirr/image_splits/split.rc2.train.json"
    edit(listing, lambda places: places.update({"val-1-img0": "./train/7/train-1-img0.png"}))
    edit(cirr / TRAIN, lambda records: records[0].update(reference="val-1-img0"))
    shutil.copy(cirr / "data/dev/val-1-img0.png", cirr / "data/train/7/train-1-img0.png")
    assert mlcl("check", "--json").findings("names") == []  # a copy
    picture(cirr / "data/train/7/train-1-img0.png", 77)
    outcome = mlcl("check", "--json")
    assert outcome.code == 3
    (finding,) = outcome.findings("names")
    assert finding["where"] == "train and val, image 'val-1-img0'"
    expected = verdicts() | {"finetune": "wrong figures", "train-combiner": "wrong figures"}
    assert json.loads(outcome.out)["verdicts"] == expected
    assert "would run, but the metrics would be wrong" in mlcl("check").out


@pytest.mark.parametrize("second", ["dress/dval00.jpg", "dval00.png"])
def test_unused_file_of_a_fashioniq_name_is_found(mlcl: Mlcl, tmp_path: Path, second: str) -> None:
    world(tmp_path, "fashioniq")
    images = tmp_path / "data/images"
    (images / second).parent.mkdir(exist_ok=True)
    shutil.copy(images / "dval00.jpg", images / second)
    assert mlcl("check", "--json").findings("names") == []
    picture(images / second, 99)
    (finding,) = mlcl("check", "--json").findings("names")
    assert finding["where"] == "image 'dval00'"
    assert f"{images / 'dval00.jpg'} is used, {images / second} is not" in finding["what"]


def test_validation_triplets_in_the_training_split_are_found(mlcl: Mlcl, tmp_path: Path) -> None:
    captions = world(tmp_path, "fashioniq") / "data/captions"
    train = json.loads((captions / "cap.dress.train.json").read_text())
    names = tmp_path / "data/image_splits"
    listed = json.loads((names / "split.dress.train.json").read_text())
    edit(names / "split.dress.val.json", lambda images: images.extend(listed))
    edit(captions / "cap.dress.val.json", lambda records: records.insert(4, train[2]))
    outcome = mlcl("check", "--json")
    assert outcome.code == 0
    (finding,) = outcome.findings("leakage")
    assert (finding["severity"], finding["where"]) == ("note", "val, dress, triplet 5")
    assert finding["what"].startswith("1 of 11 triplets of dress")
    shutil.copy(captions / "cap.dress.train.json", captions / "cap.dress.val.json")
    outcome = mlcl("check", "--json")
    assert outcome.code == 3
    (finding,) = outcome.findings("leakage")
    assert (finding["severity"], finding["where"]) == ("error", "val, dress, triplet 1")


def test_gallery_names_that_share_a_file_or_content_are_found(mlcl: Mlcl, cirr: Path) -> None:
    dev = cirr / "data/dev"
    for number in range(1, 50):
        (dev / f"val-{number}-img0.png").unlink()
        (dev / f"val-{number}-img0.png").symlink_to(dev / "val-0-img0.png")
    shutil.copy(dev / "val-55-img0.png", dev / "val-56-img0.png")
    reports = [(finding["where"], finding["what"]) for finding in mlcl("check", "--json").findings("gallery")]
    assert [where for where, _ in reports] == ["val, cirr", "val, cirr"]
    assert reports[0][1].startswith(f"50 gallery names are one file, {dev / 'val-0-img0.png'}: val-0-img0, val-1-img0")
    assert reports[1][1] == "2 gallery names are copies of one image: val-55-img0, val-56-img0"


def test_16_bit_image_that_turns_white_is_found_every_time(mlcl: Mlcl, cirr: Path) -> None:
    Image.new("I;16", (40, 30), 3000).save(cirr / "data/dev/val-2-img0.png")
    Image.new("I;16", (40, 30), 200).save(cirr / "data/dev/val-4-img0.png")
    (cirr / "work").mkdir()
    for _ in range(2):
        (finding,) = mlcl("check", "--json").findings("images")
        assert finding["where"] == str(cirr / "data/dev/val-2-img0.png")
        assert "white" in finding["what"]


def test_content_is_compared_with_the_record(mlcl: Mlcl, cirr: Path) -> None:
    (cirr / "work").mkdir()
    assert mlcl("check", "--content", "--json").json["looked_at"]["content"] == "140 hashed, 0 recorded before"
    copied, changed, decayed = (cirr / f"data/dev/val-{number}-img0.png" for number in range(3))
    content = copied.read_bytes()
    copied.unlink()
    copied.write_bytes(content)
    status = changed.stat()
    changed.write_bytes(changed.read_bytes()[:-1] + b"x")
    os.utime(changed, ns=(status.st_atime_ns, status.st_mtime_ns))
    # No program can change bytes and keep the ctime; a disk can. So the record is changed instead.
    edit(cirr / "work/features/contents.json", lambda record: record[str(decayed)].__setitem__(1, "0" * 32))
    outcome = mlcl("check", "--content", "--json")
    assert outcome.code == 3
    severities = {finding["where"]: finding["severity"] for finding in outcome.findings("content")}
    assert severities == {str(changed): "note", str(decayed): "error"}
    assert json.loads(outcome.out)["verdicts"]["evaluate"] == "wrong figures"
    again = {finding["where"] for finding in mlcl("check", "--content", "--json").findings("content")}
    assert again == {str(decayed)}


def test_unwritable_or_invalid_record_is_not_an_error(mlcl: Mlcl, cirr: Path) -> None:
    (cirr / "work").mkdir()
    (cirr / "work/features").write_text("a file where a folder is expected")
    assert mlcl("check", "--content").code == 0
    (cirr / "work/features").unlink()
    (cirr / "work/features").mkdir()
    (cirr / "work/features/contents.json").write_text("[" * 200_000)
    assert mlcl("check", "--content").code == 0
