"""Relative changes: those that a caption can describe without naming a value, such as "has longer sleeves".

Only the reference tells which values they lead to.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mlcl_cli.catalog.products import Column
from mlcl_cli.errors import DataError
from mlcl_cli.suggestions import did_you_mean

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Numbers: TypeAlias = NDArray[np.int64]

Texts = Annotated[tuple[str, ...], Field(min_length=1)]


@dataclass(frozen=True)
class Move:
    """`attribute` takes the value of `source`, both by number; or, given `following`, the one after that value."""

    attribute: int
    source: int
    following: Mapping[str, str] | None = None

    def new_codes(self, columns: Sequence[Column], codes: "Sequence[Numbers]") -> "Numbers":
        """The attribute's new codes, one for each row of `codes`; -1 where no product has the new value."""
        import numpy as np

        known = columns[self.attribute].values
        following = self.following
        after = [value if following is None else following.get(value, "") for value in columns[self.source].values]
        return np.array([known.get(value, -1) for value in after], np.int64)[codes[self.source]]


@dataclass(frozen=True)
class Relative:
    """Moves that the same captions describe. `place` says where they were written."""

    label: str
    moves: Sequence[Move]
    captions: Sequence[str]
    place: str

    @property
    def attributes(self) -> frozenset[int]:
        """The numbers of the attributes that change."""
        return frozenset(move.attribute for move in self.moves)

    @property
    def concerned(self) -> frozenset[int]:
        """The numbers of the attributes that change or decide how."""
        return self.attributes | {move.source for move in self.moves}

    def apply(self, columns: Sequence[Column], codes: "Sequence[Numbers]") -> "tuple[list[Numbers], NDArray[np.bool_]]":
        """The codes of all attributes after the change, and for which rows every move leads to another value."""
        import numpy as np

        changed = list(codes)
        is_possible = np.ones(len(codes[0]), np.bool_)
        for move in self.moves:
            new = move.new_codes(columns, codes)
            is_possible &= (new >= 0) & (new != codes[move.attribute])
            changed[move.attribute] = np.maximum(new, 0)
        return changed, is_possible


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True)


class _Step(_Entry):
    step: str
    values: Annotated[tuple[str, ...], Field(min_length=2)]
    more: Texts
    less: Texts


class _Take(_Entry):
    take: Annotated[dict[str, str], Field(min_length=1)]
    captions: Texts


def read_relative(
    label: str, value: object, attributes: Sequence[str], place: str, warn: Callable[[str], None]
) -> list[Relative]:
    """The relative changes of an entry in a file of templates; none, after `warn`, if it is about other attributes.

    An entry has `step`, `values`, `more` and `less`, or `take` and `captions` (GUIDE.md). Raises DataError.
    """
    kind = _Take if isinstance(value, dict) and "take" in value else _Step
    try:
        entry = kind.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join([label, *map(str, first["loc"])])
        what = f"{where}: {first['msg'][:1].lower()}{first['msg'][1:]}"
        raise DataError(what, where=place, remedy="Write step, values, more and less, or take and captions") from error
    numbers = {name.casefold(): number for number, name in enumerate(attributes)}
    named = [entry.step] if isinstance(entry, _Step) else [*entry.take, *entry.take.values()]
    if unknown := [name for name in named if name.casefold() not in numbers]:
        warn(f"{place}, {label}: {unknown[0]!r} is not in --attributes{did_you_mean(unknown[0], attributes)}")
        return []
    if isinstance(entry, _Take):
        moves = [Move(numbers[name.casefold()], numbers[source.casefold()]) for name, source in entry.take.items()]
        if any(move.attribute == move.source for move in moves):
            raise DataError(f"{label}: takes its own value", where=place, remedy="Name two attributes")
        return [Relative(label, moves, entry.captions, place)]
    if len(set(entry.values)) < len(entry.values):
        raise DataError(f"{label}.values: a value is repeated", where=place, remedy="List each value once, in order")
    number = numbers[entry.step.casefold()]
    up = dict(zip(entry.values, entry.values[1:], strict=False))
    down = {new: old for old, new in up.items()}
    return [
        Relative(f"{label}, {direction}", [Move(number, number, following)], captions, place)
        for direction, following, captions in (("more", up, entry.more), ("less", down, entry.less))
    ]
