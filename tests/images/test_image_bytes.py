"""An image's bytes and fingerprint."""

import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mlcl_cli.images.decode import decode_image, open_image, set_limits
from mlcl_cli.images.image_bytes import has_same_bytes, has_stamp, image_stamp, read_image


@pytest.fixture(autouse=True)
def _limits() -> None:
    set_limits(64, 60)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=20), offset=st.integers(0, 20), size=st.integers(0, 20))
def test_a_part_of_a_file_is_read(tmp_path: Path, data: bytes, offset: int, size: int) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(data)
    mtime = path.stat().st_mtime_ns
    whole, fingerprint = read_image(path)
    assert (whole, fingerprint) == (data, f"{hashlib.blake2b(data, digest_size=16).hexdigest()}:{len(data)}:{mtime}")
    assert has_stamp(fingerprint, image_stamp(path))
    if offset + size > len(data):
        with pytest.raises(OSError, match=f"truncated: .* bytes of {size}"):
            read_image(path, offset, size)
        return
    part, of_part = read_image(path, offset, size)
    assert part == data[offset : offset + size]
    assert of_part.endswith(f":{size}:{mtime}:{offset}")
    assert has_stamp(of_part, image_stamp(path, offset, size))
    assert has_same_bytes(of_part, fingerprint) == (part == data)


def test_a_fingerprint_tells_a_touched_file_from_a_changed_one(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"x")
    _, before = read_image(path)
    os.utime(path, (1, 1))
    assert not has_stamp(before, image_stamp(path))
    assert has_same_bytes(before, read_image(path)[1])
    path.write_bytes(b"y")
    assert not has_same_bytes(before, read_image(path)[1])


def test_what_cannot_be_read_has_a_readable_reason(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="^missing$"):
        read_image(tmp_path / "a.jpg")
    with pytest.raises(OSError, match="Is a directory"):
        read_image(tmp_path)
    os.mkfifo(tmp_path / "fifo.jpg")
    with pytest.raises(OSError, match="not a regular file"):
        read_image(tmp_path / "fifo.jpg")
    with (tmp_path / "large.jpg").open("wb") as file:
        file.truncate(2**30)
    with pytest.raises(ValueError, match="larger than 504 MiB"):
        read_image(tmp_path / "large.jpg")


@pytest.mark.parametrize("content", ["image", "", "text", "cut", "large"])
def test_bytes_are_decoded_as_files_are(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.jpg"
    Image.new("RGB", (40, 30), "red").save(path, "PNG")
    if content in ("", "text"):
        path.write_text(content)
    elif content == "cut":
        path.write_bytes(path.read_bytes()[:60])
    elif content == "large":
        set_limits(0.001, 60)
    outcomes = []
    for read in (lambda: open_image(path), lambda: decode_image(read_image(path)[0])):
        try:
            outcomes.append(read().tobytes())
        except (OSError, ValueError) as error:
            outcomes.append((type(error), str(error)))
    assert outcomes[0] == outcomes[1]
    assert isinstance(outcomes[0], bytes) == (content == "image")
