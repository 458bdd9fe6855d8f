"""What the catalogue's things can differ in, and how a customer would ask for the difference."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

Item = Mapping[str, str]
Choices = Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Change:
    """One wish: `apply` gives the changed item and its modifier, or None where the wish makes no sense.

    `keys` are the attributes that it may touch.
    """

    keys: tuple[str, ...]
    apply: Callable[[Item, random.Random], tuple[Item, str] | None]


@dataclass(frozen=True)
class Kind:
    """A kind of thing: its attributes, the wishes it allows, and its words.

    `whole` is a template of the full description, `parts` are templates of short phrases; both are filled with `words`
    of an item.
    """

    choices: Choices
    changes: tuple[Change, ...]
    whole: str
    parts: tuple[str, ...]
    words: Callable[[Item], Mapping[str, str]] = lambda item: item

    def random_item(self, draw: random.Random) -> Item:
        """Every attribute drawn apart."""
        return {key: draw.choice(values) for key, values in self.choices.items()}

    def changed(self, item: Item, count: int, draw: random.Random) -> tuple[Item, tuple[str, ...]] | None:
        """The item after `count` wishes about different attributes, and their modifiers; None where one fails."""
        touched: set[str] = set()
        modifiers: list[str] = []
        for _ in range(count):
            change = draw.choice(self.changes)
            outcome = None if touched & set(change.keys) else change.apply(item, draw)
            if outcome is None:
                return None
            item, modifier = outcome
            touched |= set(change.keys)
            modifiers.append(modifier)
        return item, tuple(modifiers)


@dataclass(frozen=True, slots=True)
class Pair:
    """Rows of a reference and its target in a pool of items, and the modifiers that lead from one to the other."""

    reference: int
    target: int
    modifiers: tuple[str, ...]


def make_pool(kind: Kind, size: int, counts: Sequence[int], draw: random.Random) -> list[Item]:
    """`size` different items, most of them one wish or a few (as many as one of `counts`) away from another."""
    pool: dict[tuple[str, ...], Item] = {}
    while len(pool) < size:
        item = kind.random_item(draw)
        if pool and draw.random() < 0.75:
            outcome = kind.changed(draw.choice(list(pool.values())), draw.choice(counts), draw)
            item = outcome[0] if outcome else item
        pool.setdefault(tuple(item.values()), item)
    return list(pool.values())


def make_pairs(kind: Kind, pool: Sequence[Item], size: int, counts: Sequence[int], draw: random.Random) -> list[Pair]:
    """`size` pairs of the pool that are one of `counts` wishes apart; none is there twice in the same words."""
    rows = {tuple(item.values()): row for row, item in enumerate(pool)}
    pairs: dict[Pair, None] = {}
    while len(pairs) < size:
        reference = draw.randrange(len(pool))
        outcome = kind.changed(pool[reference], draw.choice(counts), draw)
        target = rows.get(tuple(outcome[0].values())) if outcome else None
        if outcome is not None and target is not None and target != reference:
            pairs.setdefault(Pair(reference, target, outcome[1]))
    return list(pairs)


def distance(one: Item, other: Item) -> int:
    """In how many attributes two items differ."""
    return sum(one[key] != other[key] for key in one)


def other_value(key: str, values: Sequence[str], *templates: str) -> Change:
    """Any other value of `key`. Templates know {old}, {new} and the item's attributes as they were."""

    def apply(item: Item, draw: random.Random) -> tuple[Item, str] | None:
        new = draw.choice([value for value in values if value != item[key]])
        return {**item, key: new}, draw.choice(templates).format(**item, old=item[key], new=new)

    return Change((key,), apply)


def one_step(key: str, values: Sequence[str], more: Sequence[str], less: Sequence[str]) -> Change:
    """One step along `values`, said without naming any: where it leads, only the reference tells."""

    def apply(item: Item, draw: random.Random) -> tuple[Item, str] | None:
        step = draw.choice((1, -1))
        place = values.index(item[key]) + step
        if not 0 <= place < len(values):
            return None
        return {**item, key: values[place]}, draw.choice(more if step > 0 else less).format(**item)

    return Change((key,), apply)


def swap(one: str, other: str, *templates: str) -> Change:
    """Two attributes exchange their values: what comes out, only the reference tells."""

    def apply(item: Item, draw: random.Random) -> tuple[Item, str] | None:
        if item[one] == item[other]:
            return None
        return {**item, one: item[other], other: item[one]}, draw.choice(templates).format(**item)

    return Change((one, other), apply)


def match(key: str, model: str, *templates: str) -> Change:
    """`key` takes the value of `model`: which, only the reference tells."""

    def apply(item: Item, draw: random.Random) -> tuple[Item, str] | None:
        if item[key] == item[model]:
            return None
        return {**item, key: item[model]}, draw.choice(templates).format(**item)

    return Change((key, model), apply)
