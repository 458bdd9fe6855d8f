"""`.pt` files are data: TorchScript archives yield their exact weights unexecuted; a malformed file is one error."""

import hashlib
import io
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from world import SIZES

from mlcl_cli.errors import DataError
from mlcl_cli.models.torch_files import read_torch_file
from mlcl_cli.models.weights import fingerprint, import_clip, is_official, load_clip
from mlcl_cli.runs.checkpoints import load_checkpoint

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*torch.jit:FutureWarning",
    "ignore:.*torch.jit:DeprecationWarning",
    "ignore::torch.jit.TracerWarning",
    "ignore:Sparse:UserWarning",
)
RESNET = {**SIZES, "vision_layers": (1, 1, 1, 1), "vision_width": 8, "vision_patch_size": None}


def network(**sizes: Any) -> Any:
    torch.manual_seed(0)
    return import_clip().model.CLIP(**{**SIZES, **sizes}).eval()


def traced(model: nn.Module, path: Path) -> Path:
    example = torch.zeros(1, 3, 32, 32), torch.zeros(1, 77, dtype=torch.int32)
    torch.jit.trace(model, example, check_trace=False).save(str(path))
    return path


@pytest.mark.parametrize("sizes", [SIZES, RESNET], ids=["transformer", "resnet"])
@pytest.mark.parametrize("half", [False, True])
def test_traced_clip_yields_its_state_dict(tmp_path: Path, sizes: dict[str, Any], half: bool) -> None:
    model = network(**sizes)
    if half:
        import_clip().model.convert_weights(model)
    path = traced(model, tmp_path / "clip.pt")
    read, expected = read_torch_file(path), model.state_dict()
    assert read.keys() == expected.keys()
    assert all(read[name].dtype == tensor.dtype for name, tensor in expected.items())
    assert all(torch.equal(read[name], tensor) for name, tensor in expected.items())
    assert not is_official(path)
    loaded = load_clip(path)
    assert fingerprint(loaded.state_dict()) == fingerprint(expected)
    pixels, tokens = torch.randn(2, 3, 32, 32), import_clip().tokenize(["is red", "has stripes"])
    for actual, expected_features in zip(loaded(pixels, tokens), model.float()(pixels, tokens), strict=True):
        torch.testing.assert_close(actual, expected_features)


class Odd(nn.Module):
    """Strided, shared, half-precision and empty tensors, buffers, and attributes that are not weights."""

    def __init__(self) -> None:
        super().__init__()
        whole = torch.arange(60.0)
        self.strided = nn.Parameter(whole[:20].view(4, 5).T)
        self.sliced = nn.Parameter(whole[30:42:3])
        self.halved = nn.Parameter(torch.randn(3, 2).half())
        self.brain = nn.Parameter(torch.randn(3).bfloat16())
        self.register_buffer("count", torch.tensor(7))
        self.register_buffer("nothing", torch.empty(0, 3))
        self.inner = nn.BatchNorm1d(2)
        self.inner_again = self.inner
        self.loose = torch.ones(2)
        self.sizes: list[int] = [1, 2]
        self.names: dict[str, int] = {"a": 1}

    def forward(self, x: Tensor) -> Tensor:
        return x + self.loose + self.sizes[0] + self.names["a"]


@pytest.mark.filterwarnings("ignore:The TorchScript type system:UserWarning")
def test_scripted_module_yields_the_tensors_that_torchscript_reads(tmp_path: Path) -> None:
    path = tmp_path / "odd.pt"
    torch.jit.script(Odd()).save(str(path))
    expected, read = torch.jit.load(str(path)).state_dict(), read_torch_file(path)
    assert read.keys() == expected.keys()
    for name, tensor in expected.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor), name


def test_archive_that_computes_plain_gelu_is_rejected(tmp_path: Path) -> None:
    model = network()
    for block in [*model.visual.transformer.resblocks, *model.transformer.resblocks]:
        block.mlp.gelu = nn.GELU()
    with pytest.raises(DataError, match=r"clip\.pt: computes plain GELU"):
        load_clip(traced(model, tmp_path / "clip.pt"))


def test_saved_files_are_read_like_torch_load(tmp_path: Path) -> None:
    shared = torch.randn(4, 6)
    content = {
        "epoch": 3,
        "CLIP": nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).state_dict(),
        "views": {"rows": shared[1:3], "columns": shared.T, "flat": shared.view(-1), "one": shared[2, 1]},
        "parameter": nn.Parameter(torch.ones(2)),
        "plain": [1.5, None, True, "text", (1, -(2**40)), {4: "four"}, torch.Size([2, 3])],
    }
    for protocol in (2, 4):
        torch.save(content, tmp_path / "file.pt", pickle_protocol=protocol)
        read = read_torch_file(tmp_path / "file.pt")
        assert read["plain"] == content["plain"]
        assert read["epoch"] == 3
        for key in ("CLIP", "views"):
            assert read[key].keys() == content[key].keys()  # type: ignore[attr-defined]
            assert all(torch.equal(read[key][name], tensor) for name, tensor in content[key].items())  # type: ignore[attr-defined]
    assert read["views"]["rows"].untyped_storage().data_ptr() == read["views"]["flat"].untyped_storage().data_ptr()


def archive(path: Path, pickled: bytes, *storages: bytes, **how: Any) -> None:
    """A `.pt` of any pickle; `how` may hold `script`, `compression`, or `extra` entries."""
    with zipfile.ZipFile(path, "w", how.get("compression", zipfile.ZIP_STORED)) as file:
        file.writestr("a/data.pkl", pickled)
        if how.get("script"):
            file.writestr("a/constants.pkl", b"\x80\x02).")
        for number, storage in enumerate(storages):
            file.writestr(f"a/data/{number}", storage)
        for name, content in how.get("extra", {}).items():
            file.writestr(name, content)


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def tensor(
    size: tuple[int, ...] = (2, 2),
    stride: tuple[int, ...] = (2, 1),
    offset: int = 0,
    numel: int = 4,
    kind: str = "FloatStorage",
    key: str = "0",
) -> bytes:
    """The pickled form of a tensor."""
    reference = b"(" + text("storage") + f"ctorch\n{kind}\n".encode() + text(key) + text("cpu")
    numbers = number(offset) + b"(" + b"".join(map(number, size)) + b"t(" + b"".join(map(number, stride)) + b"t"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + reference + number(numel) + b"tQ" + numbers + b"\x89}tR"


def number(value: int) -> bytes:
    raw = pickle.encode_long(value)
    return b"\x8a" + bytes([len(raw)]) + raw


def of(*values: bytes, keys: tuple[str, ...] = ("a", "b", "c")) -> bytes:
    """A pickled dictionary."""
    return b"\x80\x02}(" + b"".join(text(key) + value for key, value in zip(keys, values, strict=False)) + b"u."


FOUR = bytes(16)


def hash_bomb() -> bytes:
    """A key that is a tuple of the same tuple twice, sixty levels deep: hashing it takes 2⁶⁰ steps."""
    levels = b"".join(b"q" + bytes([level]) + b"h" + bytes([level]) + b"\x86" for level in range(60))
    return b"\x80\x02})" + levels + text("x") + b"s."


def saved(content: Any) -> Callable[[Path], None]:
    return lambda path: torch.save(content, path)


def packed(pickled: bytes, *storages: bytes, **how: Any) -> Callable[[Path], None]:
    return lambda path: archive(path, pickled, *storages, **how)


def cut(path: Path) -> None:
    torch.save({"a": torch.ones(100)}, path)
    path.write_bytes(path.read_bytes()[:-200])


def legacy(path: Path) -> None:
    torch.save({"a": torch.ones(3)}, path, _use_new_zipfile_serialization=False)


def deflated(path: Path) -> None:
    archive(path, of(tensor(numel=2**20)), bytes(2**22), compression=zipfile.ZIP_DEFLATED)


def aliased(path: Path) -> None:
    """Five thousand names for one tensor."""
    one = torch.ones(1000)
    torch.save({f"n{name}": one for name in range(5000)}, path)


def twice(path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        archive(path, of(tensor()), FOUR, extra={"a/data.pkl": of()})


def flipped(path: Path) -> None:
    torch.save({"a": torch.ones(100)}, path)
    content = bytearray(path.read_bytes())
    content[content.index(struct.pack("<f", 1.0) * 8) + 5] ^= 1
    path.write_bytes(content)


def cyclic(script: bytes) -> bytes:
    """A module that contains itself."""
    return b"\x80\x02c__torch__.m\nM\n)\x81q\x00}" + text("inner") + b"h\x00s" + script + b"b."


MODULE = "class M(Module):\n  __parameters__ = []\n  __buffers__ = []\n"
MALFORMED: dict[str, Callable[[Path], None]] = {
    "empty file": lambda path: path.write_bytes(b"") and None,
    "a text": lambda path: path.write_text("<html>404</html>") and None,
    "truncated": cut,
    "legacy format": legacy,
    "a changed byte": flipped,
    "no data.pkl": packed(b"", extra={"b/other": b""}),
    "an entry twice": twice,
    "two roots": packed(of(tensor()), FOUR, extra={"b/data.pkl": b"."}),
    "empty pickle": packed(b""),
    "no stop": packed(of(tensor())[:-1], FOUR),
    "stack underflow": packed(b"\x80\x02R."),
    "no mark": packed(b"\x80\x02u."),
    "unknown memo": packed(b"\x80\x02h\x05."),
    "storage missing": packed(of(tensor())),
    "storage too short": packed(of(tensor(numel=4)), bytes(8)),
    "size beyond storage": packed(of(tensor(size=(3, 2))), FOUR),
    "stride beyond storage": packed(of(tensor(stride=(9, 1))), FOUR),
    "offset beyond storage": packed(of(tensor(offset=9)), FOUR),
    "negative stride": packed(of(tensor(stride=(-2, 1))), FOUR),
    "negative size": packed(of(tensor(size=(-2, 2))), FOUR),
    "more strides than sizes": packed(of(tensor(stride=(2, 1, 1))), FOUR),
    "overlapping elements": packed(of(tensor(size=(2**40,), stride=(0,))), FOUR),
    "huge declared size": packed(of(tensor(size=(2**62, 2**62))), FOUR),
    "huge declared storage": packed(of(tensor(size=(2**40,), stride=(1,), numel=2**40)), FOUR),
    "element count overflows": packed(of(tensor(size=(2**32, 2**32), stride=(0, 0))), FOUR),
    "sizes of thousands of bits": packed(of(tensor(size=(2**2000,) * 10_000, stride=(0,) * 10_000)), FOUR),
    "arguments are a tensor": packed(b"\x80\x02c__torch__.m\nM\n" + tensor() + b"R.", FOUR),
    "a tensor restores itself": packed(of(tensor() + b"(" + tensor() + b"K\x00K\x00NtK\x00tb"), FOUR),
    "an item of a tensor": packed(b"\x80\x02" + tensor() + b"K\x00K\x07s.", FOUR),
    "a function restores itself": packed(b"\x80\x02ctorch\nSize\n}" + text("a") + b"K\x01sb."),
    "compressed storage": deflated,
    "complex": saved({"a": torch.ones(2, dtype=torch.complex64)}),
    "quantized": packed(b"\x80\x02}" + text("a") + b"ctorch._utils\n_rebuild_qtensor\n)Rs."),
    "sparse": saved({"a": torch.ones(2, 2).to_sparse()}),
    "meta": saved({"a": torch.ones(2, device="meta")}),
    "not a dictionary": saved([torch.ones(2)]),
    "empty dictionary": saved({}),
    "keys are numbers": saved({1: torch.ones(2)}),
    "keys are tuples": saved({(1, 2): torch.ones(2)}),
    "values are numbers": saved({"a": 1}),
    "no dimensions": saved(dict.fromkeys(("visual.proj", "visual.conv1.weight", "text_projection"), torch.tensor(1.0))),
    "combiner without dimensions": saved({"Combiner": {"text_projection_layer.weight": torch.tensor(1.0)}, "x": 1}),
    "deep nesting": packed(b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b"."),
    "many steps": packed(b"\x80\x02" + b"N" * 1_500_000 + b"."),
    "hash bomb": packed(hash_bomb()),
    "one tensor under many names": aliased,
    "a function": saved({"CLIP": hashlib.sha256}),
    "script without code": packed(b"\x80\x02c__torch__.m\nM\n)\x81}b.", script=True),
    "cyclic script": packed(cyclic(b""), script=True, extra={"a/code/__torch__/m.py": MODULE}),
    "numbers of other bytes": packed(of(tensor()), FOUR, extra={"a/byteorder": b"big"}),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_file_is_one_error_that_names_it(tmp_path: Path, name: str) -> None:
    path = tmp_path / "file.pt"
    MALFORMED[name](path)
    with pytest.raises(DataError, match=r"file\.pt") as raised:
        load_clip(path)
    assert "\n" not in str(raised.value)
    if name not in ("no dimensions", "combiner without dimensions"):  # those have a state dict's form
        with pytest.raises(DataError, match=r"file\.pt"):
            load_checkpoint(path)


def test_well_formed_handmade_pickle_is_read(tmp_path: Path) -> None:
    archive(
        tmp_path / "file.pt",
        of(tensor(), tensor(size=(3,), stride=(1,), offset=1)),
        torch.arange(4.0).numpy().tobytes(),
    )
    read = read_torch_file(tmp_path / "file.pt")
    assert read["a"].tolist() == [[0, 1], [2, 3]]
    assert read["b"].tolist() == [1, 2, 3]


def test_no_pickle_executes_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    class Harmful:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (Path("harm"),)

    raw = io.BytesIO()
    pickle.Pickler(raw, 2).dump({"CLIP": Harmful()})
    for script in (False, True):
        archive(tmp_path / "file.pt", raw.getvalue(), script=script)
        for read in (load_clip, load_checkpoint):
            with pytest.raises(DataError, match="more than weights"):
                read(tmp_path / "file.pt")
    assert not Path("harm").exists()
