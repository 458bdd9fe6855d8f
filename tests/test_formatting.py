"""Counts, sizes and durations read as people write them."""

import pytest

from mlcl_cli.formatting import counted, duration, size


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [(1, "triplet", "1 triplet"), (0, "image", "0 images"), (2000, "query", "2,000 queries")],
)
def test_counts_have_their_plural(number: int, noun: str, text: str) -> None:
    assert counted(number, noun) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 KiB"),
        (6272, "6.1 KiB"),
        (882_860_032, "842 MiB"),
        (1.4 * 2**30, "1.4 GiB"),
        (2**50, "1024 TiB"),
    ],
)
def test_sizes_have_up_to_three_digits(number: float, text: str) -> None:
    assert size(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.0041, "4.1 ms"),
        (0.041, "0.041 s"),
        (9.96, "10 s"),
        (59.6, "1 min"),
        (200, "3 min 20 s"),
        (3599.6, "1 h"),
        (7500, "2 h 5 min"),
        (86399, "23 h 59 min"),
        (360_000, "4 d 4 h"),
    ],
)
def test_durations_have_at_most_two_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text
