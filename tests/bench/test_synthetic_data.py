"""The benchmark's data resembles real data."""

import pytest
import torch

from mlcl_cli.bench.synthetic_data import CIRR_WORDS, captions, load_sizes


@pytest.mark.parametrize("name", ["full", "reduced", "smallest"])
def test_sizes_load(name: str) -> None:
    sizes = load_sizes(name)
    assert sizes.finetune_batch_size <= sizes.finetune_triplets <= sizes.triplets
    assert sizes.combiner_batch_size <= sizes.triplets


def test_captions_are_as_long_as_real_ones() -> None:
    lengths = torch.tensor([float(len(text.split())) for text in captions(4000, CIRR_WORDS, 0)])
    assert lengths.quantile(0.5) == 10
    assert lengths.quantile(0.9) == 16
