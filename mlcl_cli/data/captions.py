"""How captions become query texts (METHOD.md, Section 6)."""

from collections.abc import Callable, Mapping

from mlcl_cli.data.records import Triplet

CaptionRule = Callable[[Triplet], tuple[str, ...]]


def strip_marks(caption: str) -> str:
    """`s(x)`: without full stops, question marks, commas and spaces at either end."""
    return caption.strip(".?, ")


def joined_or_alone(triplet: Triplet) -> tuple[str, ...]:
    """FashionIQ: both captions joined, in either order, or one of them."""
    a, b = map(strip_marks, triplet.captions)
    return (
        f"{a.capitalize()} and {b}",
        f"{b.capitalize()} and {a}",
        a.capitalize(),
        b.capitalize(),
    )


def as_annotated(triplet: Triplet) -> tuple[str, ...]:
    """Shoes and CIRR: the one caption as it is."""
    (caption,) = triplet.captions
    return (caption,)


# A rule gives the equally likely variants of training; validation uses the first.
RULES: Mapping[str, CaptionRule] = {"fashioniq": joined_or_alone, "shoes": as_annotated, "cirr": as_annotated}


def training_captions(dataset: str, triplet: Triplet) -> tuple[str, ...]:
    """The texts that an epoch draws one of, all equally likely: four in FashionIQ, one elsewhere."""
    return RULES[dataset](triplet)


def validation_caption(dataset: str, triplet: Triplet) -> str:
    """The text of a query in validation and test."""
    return RULES[dataset](triplet)[0]
