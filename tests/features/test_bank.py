"""A bank is stored in small files and behaves like a dict."""

import os
import shutil
import threading
import time
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from messages import Messages
from safetensors.torch import save_file
from torch import Tensor

from mlcl_cli import artifacts
from mlcl_cli.errors import MachineError
from mlcl_cli.features import bank as bank_module
from mlcl_cli.features.bank import Bank, Digests, Shard

KEY = {"kind": "images", "encoder": "abc"}
CPU = torch.device("cpu")
NAMES = "abcdefghijkl"


def opened(folder: Path, *, writes: bool = True) -> Bank:
    return Bank(folder, KEY, writes=writes)


def shards(bank: Bank) -> list[Path]:
    return sorted(bank.path.glob("*.safetensors"))


def values(bank: Bank, *names: str) -> list[float]:
    return bank.table(dict.fromkeys(names, "1"), CPU).values.flatten().tolist()


def filled(folder: Path, *names: str) -> Bank:
    """A bank with a shard for each name, whose feature is its position."""
    bank = opened(folder)
    for position, name in enumerate(names):
        bank.add({name: "1"}, torch.tensor([[float(position)]]))
    return bank


def test_added_rows_are_read_back(tmp_path: Path) -> None:
    bank = opened(tmp_path)
    bank.add({"a": "1", "b": "1"}, torch.tensor([[1.0], [2.0]]))
    bank.add({"b": "2", "c": "1"}, torch.tensor([[20.0], [30.0]]))
    for again in (bank, opened(tmp_path), opened(tmp_path, writes=False)):
        assert again.missing({"a": "1", "b": "3", "c": "1", "d": "1"}) == ["b", "d"]
        table = again.table({"c": "1", "a": "1", "b": "2"}, CPU)
        assert table.of(["a", "b", "c"]).flatten().tolist() == [1, 20, 30]


def test_adding_a_row_leaves_other_shards_unchanged(tmp_path: Path) -> None:
    bank = opened(tmp_path)
    bank.add({str(row): "1" for row in range(1000)}, torch.randn(1000, 8))
    (before,) = shards(bank)
    status = before.stat()
    bank.add({"new": "1"}, torch.randn(1, 8))
    assert len(shards(bank)) == 2
    assert (before.stat().st_ino, before.stat().st_mtime_ns) == (status.st_ino, status.st_mtime_ns)


def test_adding_nothing_writes_nothing(tmp_path: Path) -> None:
    bank = opened(tmp_path)
    bank.add({}, torch.empty(0, 4))
    assert bank.missing({}) == []
    assert len(bank.table({}, CPU).values) == 0
    assert not bank.path.exists()


def test_read_only_bank_writes_no_file(tmp_path: Path) -> None:
    filled(tmp_path, "a")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    bank = opened(tmp_path, writes=False)
    bank.add({"b": "1"}, torch.tensor([[7.0]]))
    assert values(bank, "b", "a") == [7, 0]
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("damage", ["truncated", "digests", "features", "foreign", "text"])
def test_damaged_shard_is_named_deleted_and_recomputed(tmp_path: Path, damage: str) -> None:
    bank = filled(tmp_path, "a", "b")
    first, second = shards(bank)
    content = first.read_bytes()
    if damage == "truncated":
        first.write_bytes(content[:-3])
    elif damage == "digests":
        first.write_bytes(content[:-5] + bytes([content[-5] ^ 1]) + content[-4:])
    elif damage == "features":
        first.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "foreign":
        save_file({"features": torch.ones(1, 2)}, first)
    else:
        first.write_text("not a bank")
    for writes in (False, True):
        messages = Messages()
        bank = Bank(tmp_path, KEY, writes=writes)
        assert bank.missing({"a": "1", "b": "1"}) == ["a"]
        assert values(bank, "b") == [1]
        (warning,) = messages.warnings
        assert warning.startswith(f"{first}: ")
        assert first.exists() is not writes
    bank.add({"a": "1"}, torch.tensor([[5.0]]))
    assert values(opened(tmp_path), "a", "b") == [5, 1]
    assert second.exists()


def test_features_are_verified_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path, "a", "b")
    read: list[Tensor] = []
    checksum = artifacts.checksum_of
    monkeypatch.setattr(artifacts, "checksum_of", lambda tensor: (read.append(tensor), checksum(tensor))[1])
    for _ in range(3):
        assert values(opened(tmp_path), "a") == [0]
    assert sum(tensor.dtype == torch.float32 for tensor in read) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_shard_without_read_permission_is_kept(tmp_path: Path) -> None:
    (path,) = shards(filled(tmp_path, "a"))
    path.chmod(0)
    assert opened(tmp_path).missing({"a": "1"}) == ["a"]
    assert path.exists()


def test_small_shards_are_merged(tmp_path: Path) -> None:
    names = [f"image {number}" for number in range(150)]
    bank = filled(tmp_path, *names)
    assert len(shards(bank)) < 16
    for again in (bank, opened(tmp_path)):
        assert values(again, *names) == [float(position) for position in range(150)]


def test_duplicates_of_an_interrupted_merge_are_harmless(tmp_path: Path) -> None:
    seven = [str(number) for number in range(7)]
    bank = filled(tmp_path, *seven)
    kept = {path: path.read_bytes() for path in shards(bank)}
    bank.add({"7": "1"}, torch.tensor([[7.0]]))
    assert len(shards(bank)) == 1
    for path, content in kept.items():
        path.write_bytes(content)
    again = opened(tmp_path)
    assert values(again, *seven, "7") == list(range(8))
    again.add({"8": "1"}, torch.tensor([[8.0]]))
    assert values(opened(tmp_path), *seven, "7", "8") == list(range(9))


def test_damaged_shard_is_not_merged(tmp_path: Path) -> None:
    bank = filled(tmp_path, *"abcdefg")
    first, *_ = shards(bank)
    content = first.read_bytes()
    first.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    messages = Messages()
    again = Bank(tmp_path, KEY)
    for name in "hi":
        again.add({name: "1"}, torch.ones(1, 1))
    assert [str(first) in warning for warning in messages.warnings] == [True]
    assert again.missing(dict.fromkeys("abcdefghi", "1")) == ["a"]


def test_partial_files_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    bank = filled(tmp_path, "a")
    left_over = bank.path / ".0002.safetensors.12345678.partial"
    left_over.write_bytes(b"x")
    opened(tmp_path, writes=False)
    assert left_over.exists()
    opened(tmp_path)
    assert not left_over.exists()


def test_large_additions_are_split_and_large_shards_stay_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bank_module, "SHARD_BYTES", 8 * 4 * 100)
    monkeypatch.setattr(bank_module, "SETTLED_BYTES", 4 * 100)
    bank = opened(tmp_path)
    features = torch.randn(1050, 8)
    bank.add({str(row): "1" for row in range(1050)}, features)
    assert len(shards(bank)) == 11
    settled = [(path, path.stat().st_ino) for path in shards(bank)]
    bank.add({"new": "1"}, torch.randn(1, 8))
    assert settled == [(path, path.stat().st_ino) for path in shards(bank)][:11]
    assert torch.equal(opened(tmp_path).table({str(row): "1" for row in range(1050)}, CPU).values, features)


def test_digests_with_equal_halves_are_distinct(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = bank_module.digests_of

    def colliding(stamps: dict[str, str]) -> Digests:
        halves = real(stamps).copy().view("S8")
        halves[::2] = b"5"
        return halves.view("S16")

    monkeypatch.setattr(bank_module, "digests_of", colliding)
    filled(tmp_path, "a", "b", "c")
    bank = opened(tmp_path)
    assert values(bank, "c", "a", "b") == [2, 0, 1]
    assert bank.missing({"a": "1", "z": "1"}) == ["z"]


def test_reader_without_the_lock_follows_a_merge(tmp_path: Path) -> None:
    writer = filled(tmp_path, *"abcdefg")
    reader = opened(tmp_path, writes=False)
    assert reader.missing({"a": "1"}) == []
    writer.add({"h": "1"}, torch.tensor([[7.0]]))
    assert values(reader, *"abcdefgh") == list(range(8))
    shutil.rmtree(writer.path)
    with pytest.raises(MachineError, match="changed while it was being read"):
        reader.table({"a": "1"}, CPU)


def test_readers_beside_a_writer_see_every_existing_row(tmp_path: Path) -> None:
    filled(tmp_path, *"abc")
    done = threading.Event()

    def write() -> None:
        bank = opened(tmp_path)
        for number in range(60):
            bank.add({f"more {number}": "1"}, torch.ones(1, 1))
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not done.is_set():
        assert values(opened(tmp_path, writes=False), "c", "a", "b") == [2, 0, 1]
    writer.join()


def test_shard_that_becomes_unreadable_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bank = filled(tmp_path, "a")

    def fails(*_: object) -> Tensor:
        raise OSError("Input/output error")

    monkeypatch.setattr(Shard, "read", fails)
    with pytest.raises(MachineError, match="changed while it was being read"):
        bank.table({"a": "1"}, CPU)


def test_replaced_shard_of_the_same_stamp_is_reread(tmp_path: Path) -> None:
    reader = filled(tmp_path, "a")
    assert values(reader, "a") == [0]
    (path,) = shards(reader)
    other = filled(tmp_path / "other", "b", "a")
    status, (_, second) = path.stat(), shards(other)
    with path.open("r+b") as file:  # keeps inode and size
        file.write(second.read_bytes())
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert values(reader, "a") == values(opened(tmp_path), "a") == [1]


class BankLikeDict(RuleBasedStateMachine):
    """Add, look up, reopen and damage, next to a dict with the expected rows."""

    folder: Path
    turn = 0

    @initialize()
    def begin(self) -> None:
        type(self).turn += 1
        self.root = self.folder / str(self.turn)
        self.known: dict[tuple[str, str], float] = {}
        self.bank = opened(self.root)

    @rule(rows=st.dictionaries(st.sampled_from(NAMES), st.sampled_from("12"), min_size=1), low=st.integers(0, 9))
    def add(self, rows: dict[str, str], low: int) -> None:
        # Equal names and stamps have equal features, as of equal pictures.
        features = [float(self.known.get((name, stamp), low + ord(name))) for name, stamp in rows.items()]
        self.bank.add(rows, torch.tensor(features)[:, None].repeat(1, 3))
        self.known |= dict(zip(rows.items(), features, strict=True))

    @rule()
    def reopen(self) -> None:
        self.bank = opened(self.root)

    @rule(draw=st.integers(0, 2**16), place=st.floats(0, 0.999))
    def damage(self, draw: int, place: float) -> None:
        if files := shards(self.bank):
            path = files[draw % len(files)]
            content = bytearray(path.read_bytes())
            content[int(place * len(content))] ^= 1 << draw % 8
            path.unlink()
            path.write_bytes(bytes(content))
            self.bank = opened(self.root)
            self.known = {row: value for row, value in self.known.items() if not self.bank.missing(dict([row]))}

    @invariant()
    def equals_the_dict(self) -> None:
        for stamp in "12":
            wanted = dict.fromkeys(NAMES, stamp)
            present = {name: stamp for name in wanted if (name, stamp) in self.known}
            assert self.bank.missing(wanted) == [name for name in wanted if name not in present]
            features = self.bank.table(present, CPU).values
            assert features.tolist() == [[self.known[row]] * 3 for row in present.items()]
        assert len(shards(self.bank)) <= 8 * 2


def test_bank_behaves_like_a_dict(tmp_path: Path) -> None:
    BankLikeDict.folder = tmp_path
    quick = settings(max_examples=15, stateful_step_count=25, suppress_health_check=[HealthCheck.too_slow])
    run_state_machine_as_test(BankLikeDict, settings=quick)


def test_looking_up_and_extending_200_000_rows_is_fast(tmp_path: Path) -> None:
    count = 200_000
    names = [f"catalog/product-{number}.jpg" for number in range(count)]
    features = torch.arange(count * 8, dtype=torch.float32).view(count, 8)
    opened(tmp_path).add(dict.fromkeys(names, "1"), features)
    began = time.monotonic()
    bank = opened(tmp_path)
    assert bank.missing({names[17]: "1", names[-1]: "1", "none": "1"}) == ["none"]
    assert torch.equal(bank.table({names[-1]: "1", names[17]: "1"}, CPU).values, features[[-1, 17]])
    looked_up = time.monotonic() - began
    began = time.monotonic()
    bank.add({"new": "1"}, torch.ones(1, 8))
    added = time.monotonic() - began
    # Milliseconds each on a quiet machine.
    assert looked_up < 1
    assert added < 0.25
    assert len(opened(tmp_path).missing(dict.fromkeys(names, "2"))) == count
