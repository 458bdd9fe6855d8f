"""Rows of what happens before training: pictures, texts, banks."""

import tempfile
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize

from mlcl_cli.bench import baseline
from mlcl_cli.bench.measure import Machine, Row
from mlcl_cli.bench.synthetic_data import CIRR_WORDS, FASHIONIQ_WORDS, SyntheticData, captions
from mlcl_cli.images.decode import read_images
from mlcl_cli.images.image_cache import readable
from mlcl_cli.images.transforms import preprocess_pixels
from mlcl_cli.models.encoder import tokenize


def baseline_encoder(material: SyntheticData, *, training: bool = False) -> baseline.BaselineEncoder:
    """The same weights without our memory format: in fp32, or as precise as `training`."""
    compute = material.machine.compute
    clip = deepcopy(material.encoder.clip)
    clip.visual.to(memory_format=torch.contiguous_format)
    return baseline.BaselineEncoder(clip, compute.device, compute.dtype if training else None)


def difference(ours: Tensor, other: Tensor, limit: float, what: str) -> str | None:
    """What to say where two tensors differ by more than `limit` of the largest value; None where they agree."""
    worst = float((ours - other).abs().max() / other.abs().max())
    return None if worst <= limit else f"{what} differ by {worst:.1e}"


def closeness(machine: Machine) -> float:
    """How close features must be: rounding of fp32, or of mixed precision."""
    return 1e-4 if machine.compute.dtype is None else 5e-2


def decoding(material: SyntheticData, repeats: int) -> Iterator[Row]:
    """From files to what the encoder takes."""
    photographs = baseline.Photographs(material.files, material.transform)
    found: dict[str, Tensor] = {}

    def ours() -> None:
        pictures = read_images(material.files, lambda image, _: material.transform(image), material.workers)
        found["ours"] = torch.stack([readable(picture) for picture in pictures])

    def other() -> None:
        found["plain"] = torch.cat(list(baseline.batches(photographs, 32, training=False)))

    timings = material.machine.beside(ours, other, repeats)
    count = len(material.files)
    problem = difference(preprocess_pixels(found["ours"]), found["plain"], 1e-6, "pictures")
    yield Row("decode, transform", "image", (count, count), *timings, disagreement=problem)


@torch.no_grad()
def image_encoding(material: SyntheticData, repeats: int) -> Iterator[Row]:
    """Decoded pictures through the image encoder."""
    encoder, other_encoder, at_once = material.encoder, baseline_encoder(material), material.store().batch_size
    count = min(256, len(material.files))
    pixels = preprocess_pixels(torch.randint(0, 256, (count, 3, encoder.size, encoder.size), dtype=torch.uint8))
    pixels = pixels.to(encoder.compute.device)
    found: dict[str, Tensor] = {}

    def ours() -> None:
        found["ours"] = torch.cat([encoder.encode_images(part) for part in pixels.split(at_once)])

    def other() -> None:
        found["plain"] = other_encoder.encode_images(pixels)

    timings = material.machine.beside(ours, other, repeats)
    problem = difference(found["ours"], found["plain"], 1e-4, "features")
    yield Row("encode images", "image", (count, count), *timings, disagreement=problem)


def text_encoding(material: SyntheticData, repeats: int) -> Iterator[Row]:
    """Tokens through the text encoder, captions as long as FashionIQ's (two joined) and as CIRR's."""
    count = material.sizes.texts
    joined = zip(captions(count, FASHIONIQ_WORDS, 3), captions(count, FASHIONIQ_WORDS, 4), strict=True)
    yield _texts(material, repeats, "FashionIQ", [f"{one} and {two}" for one, two in joined])
    yield _texts(material, repeats, "CIRR", captions(count, CIRR_WORDS, 5))


@torch.no_grad()
def _texts(material: SyntheticData, repeats: int, kind: str, texts: list[str]) -> Row:
    encoder, other_encoder, store = material.encoder, baseline_encoder(material), material.store()
    tokens = tokenize(texts, encoder.context_length, encoder.compute.device)
    found: dict[str, Tensor] = {}

    def ours() -> None:
        found["ours"] = store.encode_tokens(tokens)

    def other() -> None:
        found["plain"] = other_encoder.tokens(tokens.values)

    timings = material.machine.beside(ours, other, repeats)
    worst = float((normalize(found["ours"], dim=-1) - normalize(found["plain"], dim=-1)).abs().max())
    problem = None if worst <= 1e-6 else f"features differ by {worst:.1e}"
    return Row(f"encode texts, {kind}", "caption", (len(texts), len(texts)), *timings, disagreement=problem)


@torch.no_grad()
def bank_build(material: SyntheticData, repeats: int) -> Iterator[Row]:
    """Files to features on disk; the floor is the slower of decoding and encoding, each alone."""
    photographs, other_encoder, encoder = (
        baseline.Photographs(material.files, material.transform),
        baseline_encoder(material),
        material.encoder,
    )
    found: dict[str, Tensor] = {}
    names = [name for name, _ in material.files]
    store = material.store()
    at_once = store.batch_size
    crops = torch.zeros(at_once, 3, encoder.size, encoder.size, dtype=torch.uint8)

    def ours() -> None:
        store.folder = Path(tempfile.mkdtemp(dir=material.folder))
        found["ours"] = store.images(material.files).table.of(names)

    def other() -> None:
        parts = baseline.batches(photographs, 32, training=False)
        found["plain"] = torch.cat([other_encoder.encode_images(part) for part in parts])

    def decode_alone() -> None:
        for _ in read_images(material.files, lambda image, _: material.transform(image), material.workers):
            pass

    def encode_alone() -> None:
        for start in range(0, len(names), at_once):
            part = crops[: min(at_once, len(names) - start)]
            encoder.encode_images(preprocess_pixels(part.to(encoder.compute.device)))

    ours_time, plain_time, decode, encode = material.machine.alternate(
        [ours, other, decode_alone, encode_alone], repeats
    )
    problem = difference(found["ours"], found["plain"], 1e-4, "features")
    slower = max(decode.median, encode.median)
    of = f"the slower of decoding alone, {decode.median:.2f} s, and encoding alone, {encode.median:.2f} s"
    if encoder.compute.device.type == "cpu":
        both = decode.median + encode.median
        of += (
            f"; both need every core, and one after the other take {both:.2f} s, {both / ours_time.median:.0%} of ours"
        )
    yield Row("bank build", "image", (len(names), len(names)), ours_time, plain_time, problem, slower, of)


ROWS: tuple[Callable[[SyntheticData, int], Iterator[Row]], ...] = (decoding, image_encoding, text_encoding, bank_build)
