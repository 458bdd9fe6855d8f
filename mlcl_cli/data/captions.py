"""How FashionIQ's captions become query texts (METHOD.md, Section 6); Shoes and CIRR take their caption as it is."""


def strip_marks(caption: str) -> str:
    """`s(x)`: without full stops, question marks, commas and spaces at either end."""
    return caption.strip(".?, ")


def joined_or_alone(first: str, second: str) -> tuple[str, ...]:
    """Both captions joined, in either order, or one of them: equally likely in training, the first in validation."""
    a, b = strip_marks(first), strip_marks(second)
    return (
        f"{a.capitalize()} and {b}",
        f"{b.capitalize()} and {a}",
        a.capitalize(),
        b.capitalize(),
    )
