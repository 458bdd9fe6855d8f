"""`mlcl check` finds every defect and nothing else, and changes none of the user's files."""

import csv
import fcntl
import json
import os
import signal
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import Mlcl, Outcome
from world import world

VAL = "data/cirr/captions/cap.rc2.val.json"


def test_sound_data_set_has_no_errors(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "cirr")
    result = mlcl("check", "--json").json
    others = [finding for finding in result["findings"] if finding["check"] not in ("counts", "clip")]
    assert [(finding["check"], finding["what"]) for finding in others] == [("captions", "a caption is blank")]
    assert result["verdict"] == "sound"
    assert "checked" in mlcl("check").out


def huge_png(path: Path) -> None:
    """A few bytes that claim to be 60,000 by 60,000 pixels."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def edit(folder: Path, change: Callable[[list[dict[str, Any]]], object]) -> None:
    path = folder / VAL
    records = json.loads(path.read_text())
    change(records)
    path.write_text(json.dumps(records))


def record(number: int, **fields: Any) -> Callable[[Path], None]:
    """Sets fields of a record; None deletes one."""

    def plant(folder: Path) -> None:
        def change(records: list[dict[str, Any]]) -> None:
            changed = records[number] | fields
            records[number] = {key: value for key, value in changed.items() if value is not None}

        edit(folder, change)

    return plant


def image(number: int, content: bytes | None) -> Callable[[Path], None]:
    def plant(folder: Path) -> None:
        path = folder / f"data/dev/val-{number}-img0.png"
        path.unlink() if content is None else path.write_bytes(content)

    return plant


def truncated(number: int) -> Callable[[Path], None]:
    def plant(folder: Path) -> None:
        path = folder / f"data/dev/val-{number}-img0.png"
        path.write_bytes(path.read_bytes()[:-40])

    return plant


def folder_for_an_image(folder: Path) -> None:
    path = folder / "data/dev/val-5-img0.png"
    path.unlink()
    path.mkdir()


def damaged_checkpoint(folder: Path) -> None:
    path = folder / "work/combiner/cirr-1/best.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\x10\0\0\0\0\0\0\0{not json at all")


def same_target(folder: Path) -> None:
    edit(folder, lambda records: records[11].update(target_hard=records[11]["reference"]))


# Each planted defect: the check that finds it, a part of what it says, and how it is planted.
DEFECTS: dict[str, tuple[str, str, Callable[[Path], object]]] = {
    "field missing": ("annotations", "record 1: field caption is missing", record(0, caption=None)),
    "caption a number": ("annotations", "record 2, field caption: expected a string", record(1, caption=7)),
    "pair a text": ("annotations", "record 3, field pairid: expected an integer", record(2, pairid="x")),
    "no object": (
        "annotations",
        "record 4: expected an object",
        lambda folder: edit(folder, lambda r: r.insert(3, [])),
    ),
    "leaves the folder": ("annotations", "record 6, field reference: '../x'", record(4, reference="../x")),
    "target no member": (
        "annotations",
        "record 7: target 'val-59-img0' is not among",
        record(5, target_hard="val-59-img0"),
    ),
    "unknown image": ("annotations", "'nowhere'", record(6, reference="nowhere")),
    "pair twice": ("annotations", "record 10: pairid 22 is already used", record(8, pairid=22)),
    "no set": ("annotations", "record 11: field img_set is missing", record(9, img_set=None)),
    "half a pair": ("annotations", "record 12, field caption: contains an unpaired", record(10, caption="a\ud800")),
    "target is reference": ("captions", "the target is the reference", same_target),
    "blank caption": ("captions", "val, pair 27: a caption is blank", record(12, caption="  ")),
    "long caption": ("captions", "longer than 77 tokens", record(7, caption="blue dog " * 60)),
    "image missing": ("images", "val-0-img0.png: missing", image(0, None)),
    "image empty": ("images", "val-1-img0.png: empty file", image(1, b"")),
    "image a text": ("images", "val-2-img0.png: not an image", image(2, b"<html>404</html>")),
    "image truncated": ("images", "val-3-img0.png: damaged", truncated(3)),
    "image huge": (
        "images",
        "val-4-img0.png: larger than 64 megapixels",
        lambda f: huge_png(f / "data/dev/val-4-img0.png"),
    ),
    "image a folder": ("images", "val-5-img0.png: Is a directory", folder_for_an_image),
    "checkpoint": ("checkpoints", "best.safetensors", damaged_checkpoint),
}


def findings(outcome: Outcome) -> list[tuple[str, str]]:
    """The check and the text of each finding, except counts."""
    found = json.loads(outcome.out)["findings"]
    return [(f["check"], f"{f['where']}: {f['what']}") for f in found if f["check"] != "counts"]


def test_twenty_planted_defects_are_found_and_no_others(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "cirr", triplets=14)
    before = findings(mlcl("check", "--json"))
    for _, _, plant in reversed(DEFECTS.values()):  # later records first: one defect adds a record
        plant(tmp_path)
    files = {path: path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file()}
    outcome = mlcl("check", "--json", "--output", "found.csv")
    assert outcome.code == 3
    after = findings(outcome)
    new = [finding for finding in after if finding not in before]
    for name, (check, part, _) in DEFECTS.items():
        assert [text for kind, text in new if kind == check and part in text], (name, new)
    assert len(new) == len(DEFECTS) == 20, new
    rows = list(csv.DictReader((tmp_path / "found.csv").read_text().splitlines()))
    assert len(rows) >= 20
    assert {path: path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file()} == files


def test_verified_images_are_skipped_until_they_change(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "shoes")
    mlcl("prepare-shoes")
    (tmp_path / "work").mkdir()
    first, second = (mlcl("check", "--json").json["looked_at"]["images"].split(" ")[:2] for _ in range(2))
    assert len(first) == 1
    assert second[0] == f"{second[1]},"
    listed = json.loads((tmp_path / "data/annotations/split.val.json").read_text())
    picture = tmp_path / "data/images" / listed[0]
    picture.write_bytes(picture.read_bytes()[:200])
    outcome = mlcl("check", "--json")
    assert outcome.code == 3
    assert json.loads(outcome.out)["looked_at"]["images"].split(" ")[1] == str(int(second[1]) - 1)


def test_dropped_images_are_not_errors(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "fashioniq")
    (tmp_path / "data/images/dval00.jpg").write_bytes(b"")
    assert mlcl("check").code == 3
    assert mlcl("check", "--set", "bad_images=drop").code == 0


def test_missing_root_and_damaged_clip_are_reported(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "cirr")
    (tmp_path / "clip.pt").write_bytes(b"no clip")
    outcome = mlcl("check", "--json", "--set", "roots.cirr=elsewhere")
    assert outcome.code == 3
    found = json.loads(outcome.out)["findings"]
    assert {finding["check"] for finding in found} == {"annotations", "clip"}
    assert mlcl("check", "--split", "night").code == 2


def test_read_that_hangs_times_out_and_names_the_image(tmp_path: Path) -> None:
    world(tmp_path, "cirr")
    path = tmp_path / "data/dev/val-3-img0.png"
    held = os.open(path, os.O_RDWR)
    try:  # as a file server does that lets a client write first
        fcntl.fcntl(held, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(held, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    except OSError:
        pytest.skip("needs a file system with leases")
    command = [sys.executable, "-m", "mlcl_cli", "evaluate", "--combining-function", "sum"]
    limit = ["--set", "image.read_seconds=1"]
    done = subprocess.run([*command, *limit], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    os.close(held)
    assert done.returncode == 4, done.stderr
    assert "'val-3-img0' takes more than 1 s" in done.stderr
    assert "Traceback" not in done.stderr


def test_disk_that_is_too_small_is_an_error(mlcl: Mlcl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world(tmp_path, "cirr")
    nearly_full = type("Usage", (), {"free": 100})()
    monkeypatch.setattr("mlcl_cli.workflows.check_machine.shutil.disk_usage", lambda _: nearly_full)
    outcome = mlcl("check", "--json")
    assert outcome.code == 3
    (finding,) = outcome.findings("disk")
    assert finding["where"] == str(tmp_path / "work")
    assert finding["what"].endswith("GiB available")
