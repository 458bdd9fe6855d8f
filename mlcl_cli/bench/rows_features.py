"""Rows of what happens before training: images, texts, feature banks."""

import json
import shutil
from collections.abc import Iterator

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import normalize

from mlcl_cli.bench import baseline
from mlcl_cli.bench.measure import Row, Side, difference
from mlcl_cli.bench.synthetic_data import CIRR_WORDS, FASHIONIQ_WORDS, SyntheticData, captions
from mlcl_cli.features.bank import VERIFIED, Bank
from mlcl_cli.images.decode import open_image, read_files
from mlcl_cli.images.image_cache import readable
from mlcl_cli.images.transforms import preprocess_pixels
from mlcl_cli.models.compute import Compute
from mlcl_cli.models.encoder import tokenize

LOADER_BATCH = 32
FEATURES = 640
LOOKED_UP = 5
WRITE_BATCH = 10_000
BANK_KEY = {"kind": "images", "encoder": "bench"}


def decoding(data: SyntheticData) -> Iterator[Row]:
    """From files to what the encoder takes."""
    dataset = baseline.Images(data.files, data.transform)

    def decode() -> Tensor:
        images = read_files(data.files, lambda path, _: data.transform(open_image(path)), data.workers)
        return torch.stack([readable(image) for image in images])

    yield data.machine.compare(
        "decode, transform",
        "image",
        len(data.files),
        decode,
        lambda: torch.cat(list(baseline.batches(dataset, LOADER_BATCH))),
        lambda ours, theirs: difference(preprocess_pixels(ours), theirs, 1e-6, "pixels"),
    )


@torch.no_grad()
def image_encoding(data: SyntheticData) -> Iterator[Row]:
    """Decoded images through the image encoder."""
    encoder, clip, batch_size = data.encoder, baseline.copy_clip(data.encoder), data.store().batch_size
    count = min(256, len(data.files))
    pixels = preprocess_pixels(torch.randint(0, 256, (count, 3, encoder.size, encoder.size), dtype=torch.uint8))
    pixels = pixels.to(encoder.compute.device)
    yield data.machine.compare(
        "encode images",
        "image",
        count,
        lambda: torch.cat([encoder.encode_images(part) for part in pixels.split(batch_size)]),
        lambda: baseline.encode(clip.encode_image, pixels, _in_fp32(data)),
        lambda ours, theirs: difference(ours, theirs, 1e-4, "features"),
    )


def text_encoding(data: SyntheticData) -> Iterator[Row]:
    """Tokens through the text encoder, with captions as long as FashionIQ's (two joined) and as CIRR's."""
    count = data.sizes.texts
    pairs = zip(captions(count, FASHIONIQ_WORDS, 3), captions(count, FASHIONIQ_WORDS, 4), strict=True)
    yield _text_encoding(data, "FashionIQ", [f"{first} and {second}" for first, second in pairs])
    yield _text_encoding(data, "CIRR", captions(count, CIRR_WORDS, 5))


@torch.no_grad()
def _text_encoding(data: SyntheticData, name: str, texts: list[str]) -> Row:
    clip, store = baseline.copy_clip(data.encoder), data.store()
    tokens = tokenize(texts, data.encoder.context_length, data.encoder.compute.device)

    def check(ours: Tensor, theirs: Tensor) -> str | None:
        worst = float((normalize(ours, dim=-1) - normalize(theirs, dim=-1)).abs().max())
        return None if worst <= 1e-6 else f"features differ by {worst:.1e}"

    return data.machine.compare(
        f"encode texts, {name}",
        "caption",
        len(texts),
        lambda: store.encode_tokens(tokens),
        lambda: baseline.encode(clip.encode_text, tokens.values, _in_fp32(data)),
        check,
    )


@torch.no_grad()
def bank_build(data: SyntheticData) -> Iterator[Row]:
    """From files to features on disk; the floor is the slower one of decoding and encoding, each alone."""
    dataset, clip = baseline.Images(data.files, data.transform), baseline.copy_clip(data.encoder)
    names, store, encoder = [name for name, _ in data.files], data.store(), data.encoder
    pixels = torch.zeros(len(names), 3, encoder.size, encoder.size, dtype=torch.uint8)

    def build() -> Tensor:
        store.folder = data.new_folder()
        return store.images(data.files).table.of(names)

    def baseline_build() -> Tensor:
        parts = baseline.batches(dataset, LOADER_BATCH)
        return torch.cat([baseline.encode(clip.encode_image, part, _in_fp32(data)) for part in parts])

    def decode() -> None:
        for _ in read_files(data.files, lambda path, _: data.transform(open_image(path)), data.workers):
            pass

    def encode() -> None:
        for part in pixels.split(store.batch_size):
            encoder.encode_images(preprocess_pixels(part.to(encoder.compute.device)))

    ours, theirs = Side(build), Side(baseline_build)
    our_time, baseline_time, decoding_time, encoding_time = data.machine.alternate(ours, theirs, decode, encode)
    problem = difference(ours.result, theirs.result, 1e-4, "features")
    alone = decoding_time.median_s, encoding_time.median_s
    floor = f"the slower of decoding alone, {alone[0]:.2f} s, and encoding alone, {alone[1]:.2f} s"
    if encoder.compute.device.type == "cpu":
        share = f"{sum(alone):.2f} s, {sum(alone) / our_time.median_s:.0%} of ours"
        floor += f"; both need every core, and one after the other they take {share}"
    counts = (len(names), len(names))
    yield Row("bank build", "image", counts, our_time, baseline_time, problem, max(alone), floor)


def bank_growth(data: SyntheticData) -> Iterator[Row]:
    """Add a row to a large bank, and look up a few; the baseline is one safetensors file, written and read whole.

    Skipped if the disk has no room for both.
    """
    count = data.sizes.bank_rows
    if 3 * 4 * FEATURES * count > shutil.disk_usage(data.folder).free:
        return
    folder = data.new_folder()
    features_file, names_file = folder / "features.safetensors", folder / "names.json"
    features = torch.randn(count, FEATURES, generator=torch.Generator().manual_seed(0))
    names = [f"products/{row:09}.jpg" for row in range(count)]
    bank = Bank(folder / "bank", BANK_KEY)
    for start in range(0, count, WRITE_BATCH):
        part = slice(start, start + WRITE_BATCH)
        bank.add(dict.fromkeys(names[part], "1"), features[part])
    wanted = dict.fromkeys(names[:: max(1, count // LOOKED_UP)][:LOOKED_UP], "1")
    added: dict[str, str] = {}

    def add() -> None:
        name = f"added {len(added)}"
        bank.add({name: "1"}, torch.zeros(1, FEATURES))
        added[name] = "1"

    def rewrite() -> None:
        nonlocal features
        names.append(f"added {len(names)}")
        features = torch.cat([features, torch.zeros(1, FEATURES)])
        save_file({"features": features}, features_file)
        names_file.write_text(json.dumps({name: row for row, name in enumerate(names)}), "utf-8")

    def look_up() -> Tensor:
        VERIFIED.clear()  # as in a new process
        opened = Bank(folder / "bank", BANK_KEY)
        assert not opened.missing(wanted)
        return opened.table(wanted, torch.device("cpu")).values

    def look_up_in_file() -> Tensor:
        rows = json.loads(names_file.read_text("utf-8"))
        return load_file(features_file)["features"][[rows[name] for name in wanted]]

    def missing(_ours: None, _baseline: None) -> str | None:
        lost = len(bank.missing(added))
        return f"{lost} added rows are missing" if lost else None

    def unequal(ours: Tensor, theirs: Tensor) -> str | None:
        return None if torch.equal(ours, theirs) else "features differ"

    yield data.machine.compare(f"add a row to {count:,}", "row", 1, add, rewrite, missing)
    name = f"open {count:,}, look up {LOOKED_UP}"
    yield data.machine.compare(name, "time", 1, look_up, look_up_in_file, unequal)
    shutil.rmtree(folder)


def _in_fp32(data: SyntheticData) -> Compute:
    return Compute(data.machine.compute.device, None)
