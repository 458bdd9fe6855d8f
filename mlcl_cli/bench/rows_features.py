"""Rows of what happens without training: images, texts, feature banks, validation and ranking."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import psutil
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import normalize

from mlcl_cli.bench import baseline
from mlcl_cli.bench.measure import Row, difference, exceeds
from mlcl_cli.bench.synthetic_data import CIRR_WORDS, RandomValidation, SyntheticData, captions
from mlcl_cli.data.datasets import DATASETS
from mlcl_cli.features.bank import VERIFIED, Bank
from mlcl_cli.images.decode import open_image, read_files
from mlcl_cli.images.image_cache import readable
from mlcl_cli.images.transforms import preprocess_pixels
from mlcl_cli.models.compute import Compute
from mlcl_cli.models.encoder import tokenize
from mlcl_cli.retrieval.evaluation import sum_query
from mlcl_cli.retrieval.ranking import rank_targets

LOADER_BATCH = 32
FEATURES = 640
LOOKED_UP = 5
QUERIES = 1000
TITLES = {"cirr": "CIRR", "fashioniq": "FashionIQ dress", "shoes": "Shoes"}


def decoding(data: SyntheticData) -> Iterator[Row]:
    """From files to what the encoder takes."""
    dataset = baseline.read_images(data.files, data.transform)
    yield data.machine.compare(
        "decode, transform",
        "image",
        len(data.files),
        lambda: _decode(data),
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
        partial(difference, limit=1e-4, what="features"),
    )


@torch.no_grad()
def text_encoding(data: SyntheticData) -> Iterator[Row]:
    """Tokens through the text encoder, with captions as long as FashionIQ's (two joined) and as CIRR's."""
    clip, store, count = baseline.copy_clip(data.encoder), data.store(), data.sizes.texts
    joined = data.triplets(count).captions[::4]
    for name, texts in (("FashionIQ", joined), ("CIRR", captions(count, CIRR_WORDS, 5))):
        tokens = tokenize(texts, data.encoder.context_length, data.encoder.compute.device)
        yield data.machine.compare(
            f"encode texts, {name}",
            "caption",
            count,
            partial(store.encode_tokens, tokens),
            partial(baseline.encode, clip.encode_text, tokens.values, _in_fp32(data)),
            lambda ours, theirs: exceeds(
                float((normalize(ours, dim=-1) - normalize(theirs, dim=-1)).abs().max()), 1e-6, "features"
            ),
        )


@torch.no_grad()
def bank_build(data: SyntheticData) -> Iterator[Row]:
    """From files to features on disk; the floor is the slower one of decoding and encoding, each alone."""
    dataset, clip = baseline.read_images(data.files, data.transform), baseline.copy_clip(data.encoder)
    names, store, encoder = [name for name, _ in data.files], data.store(), data.encoder
    pixels = torch.zeros(len(names), 3, encoder.size, encoder.size, dtype=torch.uint8)

    def build() -> Tensor:
        store.folder = data.new_folder()
        return store.images(data.files).table.of(names)

    def baseline_build() -> Tensor:
        parts = baseline.batches(dataset, LOADER_BATCH)
        return torch.cat([baseline.encode(clip.encode_image, part, _in_fp32(data)) for part in parts])

    def encode() -> None:
        for part in pixels.split(store.batch_size):
            encoder.encode_images(preprocess_pixels(part.to(encoder.compute.device)))

    check = partial(difference, limit=1e-4, what="features")
    row = data.machine.compare("bank build", "image", len(names), build, baseline_build, check)
    decoding_s, encoding_s = (timing.median_s for timing in data.machine.alternate(lambda: _decode(data), encode))
    floor = f"the slower of decoding alone, {decoding_s:.2f} s, and encoding alone, {encoding_s:.2f} s"
    if encoder.compute.device.type == "cpu":
        both = decoding_s + encoding_s
        floor += f"; both need every core, and take {both:.2f} s in sequence, {both / row.ours.median_s:.0%} of ours"
    yield replace(row, floor_s=max(decoding_s, encoding_s), floor=floor)


def bank_growth(data: SyntheticData) -> Iterator[Row]:
    """Add a row to a large bank, and look up five; the baseline rewrites and reads a single safetensors file.

    Skipped if the disk has no room for both.
    """
    count = data.sizes.bank_rows
    if 3 * 4 * FEATURES * count > shutil.disk_usage(data.folder).free:
        return
    folder = data.new_folder()
    features_file, names_file = folder / "features.safetensors", folder / "names.json"
    features = torch.randn(count, FEATURES, generator=torch.Generator().manual_seed(0))
    names = [f"products/{row:09}.jpg" for row in range(count)]
    open_bank = partial(Bank, folder / "bank", {"kind": "images", "encoder": "bench"})
    bank = open_bank()
    for start in range(0, count, 10_000):
        part = slice(start, start + 10_000)
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
        opened = open_bank()
        assert not opened.missing(wanted)
        return opened.table(wanted, torch.device("cpu")).values

    def look_up_in_file() -> Tensor:
        rows = json.loads(names_file.read_text("utf-8"))
        return load_file(features_file)["features"][[rows[name] for name in wanted]]

    def missing(_ours: None, _baseline: None) -> str | None:
        lost = len(bank.missing(added))
        return f"{lost} added rows are missing" if lost else None

    yield data.machine.compare(f"add a row to {count:,}", "row", 1, add, rewrite, missing)
    name, check = f"open {count:,}, look up {LOOKED_UP}", partial(difference, limit=0, what="features")
    yield data.machine.compare(name, "time", 1, look_up, look_up_in_file, check)
    shutil.rmtree(folder)


def validations(data: SyntheticData) -> Iterator[Row]:
    """Queries composed, ranked and scored, as after every epoch."""
    for dataset, size in data.sizes.validation.items():
        validation = RandomValidation(dataset, {dataset: size}, FEATURES, data.machine.compute.device)
        # One set of queries, whose recalls are compared: no means over several.
        protocol = replace(DATASETS[dataset].protocol(), summary=lambda recalls: dict(*recalls.values()))
        yield data.machine.compare(
            f"validate {TITLES[dataset]}",
            "query",
            size[0],
            partial(validation.evaluation(protocol), sum_query),
            partial(baseline.validate, validation.split.sets[0], validation.images, validation.texts, protocol),
            lambda ours, theirs: exceeds(
                max(abs(ours[key] - value) for key, value in theirs.items()), 1e-4, "recalls in percent"
            ),
        )


def large_gallery(data: SyntheticData) -> Iterator[Row]:
    """A thousand queries against a large gallery; the baseline is the bare matrix product."""
    for size in data.sizes.galleries:
        if 4 * FEATURES * size + 2**30 < 0.8 * _free_memory(data.machine.compute.device):
            yield _large_gallery(data, size)


def _large_gallery(data: SyntheticData, size: int) -> Row:
    device = data.machine.compute.device
    draw = torch.Generator(device).manual_seed(2)
    gallery = torch.empty(size, FEATURES, device=device)
    for part in gallery.split(100_000):
        part.copy_(normalize(torch.randn(part.shape, generator=draw, device=device), dim=-1))
    queries = normalize(torch.randn(QUERIES, FEATURES, generator=draw, device=device), dim=-1)
    targets = torch.randint(size, (QUERIES,), generator=draw, device=device)
    batch_size = QUERIES if 5 * QUERIES * size < _free_memory(device) else 100

    def product() -> Tensor:
        for part in queries.split(batch_size):
            gallery @ part.T
        return torch.empty(0)

    def check(ours: Tensor, _product: Tensor) -> str | None:
        scores = queries[:20] @ gallery.T
        naive = (scores > scores.gather(1, targets[:20, None])).sum(dim=1).cpu() + 1
        # A product's rounding may swap neighbors.
        return exceeds(int((ours[:20] - naive).abs().max()), max(2, size // 100_000), "ranks")

    def rank() -> Tensor:
        return rank_targets(queries, gallery, targets).gallery

    row = data.machine.compare(f"rank {QUERIES:,} in {size:,}", "query", QUERIES, rank, product, check)
    assert row.baseline is not None
    return replace(row, floor_s=row.baseline.median_s, floor="the bare product, which is the baseline")


def _decode(data: SyntheticData) -> Tensor:
    images = read_files(data.files, lambda path, _: data.transform(open_image(path)), data.workers)
    return torch.stack([readable(image) for image in images])


def _free_memory(device: torch.device) -> int:
    return torch.cuda.mem_get_info()[0] if device.type == "cuda" else psutil.virtual_memory().available


def _in_fp32(data: SyntheticData) -> Compute:
    return Compute(data.machine.compute.device, None)
