"""The kinds of things in the demo's catalog (vocabulary.yaml), and the changes that lead from one thing to another."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

import yaml
from pydantic import BaseModel, TypeAdapter

Item = Mapping[str, str]  # a value for each attribute
Words = tuple[str, ...]


class DataFile(BaseModel, frozen=True, extra="forbid"):
    """Part of a YAML file beside this module."""


class Replace(DataFile):
    """Any other value of an attribute. Captions may name {old}, {new} and the item's attributes before the change."""

    replace: str
    captions: Words
    values: Words = ()

    @property
    def keys(self) -> set[str]:
        """The attributes that the caption depends on."""
        return {self.replace}

    def apply(self, item: Item, kind: "Kind", draw: random.Random) -> tuple[Item, str] | None:
        """The changed item and a caption for the change; None where the item does not allow it."""
        old = item[self.replace]
        new = draw.choice([value for value in self.values or kind.attributes[self.replace] if value != old])
        return {**item, self.replace: new}, draw.choice(self.captions).format(**item, old=old, new=new)


class Step(DataFile):
    """One step along an attribute's values, without naming any: only the reference tells where it leads."""

    step: str
    more: Words
    less: Words

    @property
    def keys(self) -> set[str]:
        return {self.step}

    def apply(self, item: Item, kind: "Kind", draw: random.Random) -> tuple[Item, str] | None:
        values, step = kind.attributes[self.step], draw.choice((1, -1))
        place = values.index(item[self.step]) + step
        if not 0 <= place < len(values):
            return None
        return {**item, self.step: values[place]}, draw.choice(self.more if step > 0 else self.less).format(**item)


class Take(DataFile):
    """Attributes take the values of others: only the reference tells which."""

    take: dict[str, str]
    captions: Words

    @property
    def keys(self) -> set[str]:
        return {*self.take, *self.take.values()}

    def apply(self, item: Item, kind: "Kind", draw: random.Random) -> tuple[Item, str] | None:  # noqa: ARG002
        changed = {**item, **{key: item[source] for key, source in self.take.items()}}
        return None if changed == item else (changed, draw.choice(self.captions).format(**item))


class Kind(DataFile):
    """A kind of thing: its attributes, the changes that it allows, and the templates of its descriptions.

    `look_alike_changes` and `triplet_changes` are how many changes separate two look-alikes of the catalog, and the
    images of a triplet; each number is equally likely. `words` derives further words from the item's values.
    """

    attributes: dict[str, Words]
    changes: tuple[Replace | Step | Take, ...]
    description: str
    phrases: Words
    look_alike_changes: tuple[int, ...]
    triplet_changes: tuple[int, ...]
    words: dict[str, dict[str, str]] = {}

    def changed(self, item: Item, counts: Sequence[int], draw: random.Random) -> tuple[Item, Words] | None:
        """The item after a random number of changes, one of `counts`, and their captions; None if one is impossible.

        Each change concerns other attributes.
        """
        touched: set[str] = set()
        captions: Words = ()
        for _ in range(draw.choice(counts)):
            change = draw.choice(self.changes)
            outcome = None if touched & change.keys else change.apply(item, self, draw)
            if outcome is None:
                return None
            item, caption = outcome
            touched |= change.keys
            captions += (caption,)
        return item, captions

    def describe(self, item: Item) -> tuple[str, Words]:
        """A full description of the item, and short phrases that are true of it."""
        words = dict(item)
        for name, texts in self.words.items():
            words[name] = next(texts[value] for value in item.values() if value in texts)
        return self.description.format(**words), tuple(phrase.format(**words) for phrase in self.phrases)


@dataclass(frozen=True, slots=True)
class Pair:
    """Rows of a reference and its target in a pool of items, and the captions that lead from one to the other."""

    reference: int
    target: int
    captions: Words

    @property
    def sentence(self) -> str:
        """All captions in one."""
        return " and ".join(self.captions)


def make_pool(kind: Kind, size: int, draw: random.Random) -> list[Item]:
    """`size` different items, most of which are a few changes away from another."""
    pool: dict[Words, Item] = {}
    while len(pool) < size:
        item: Item = {key: draw.choice(values) for key, values in kind.attributes.items()}
        if pool and draw.random() < 0.75:
            outcome = kind.changed(draw.choice(list(pool.values())), kind.look_alike_changes, draw)
            item = outcome[0] if outcome else item
        pool.setdefault(tuple(item.values()), item)
    return list(pool.values())


def make_pairs(kind: Kind, pool: Sequence[Item], size: int, draw: random.Random) -> list[Pair]:
    """`size` pairs of the pool that a triplet's number of changes separates, no two of them with the same captions."""
    rows = {tuple(item.values()): row for row, item in enumerate(pool)}
    pairs: dict[Pair, None] = {}
    while len(pairs) < size:
        reference = draw.randrange(len(pool))
        outcome = kind.changed(pool[reference], kind.triplet_changes, draw)
        target = rows.get(tuple(outcome[0].values())) if outcome else None
        if outcome is not None and target is not None and target != reference:
            pairs.setdefault(Pair(reference, target, outcome[1]))
    return list(pairs)


def read_text(name: str) -> str:
    """The text of a file beside this module."""
    return resources.files(__package__).joinpath(name).read_text("utf-8")


KINDS = TypeAdapter(dict[str, Kind]).validate_python(yaml.safe_load(read_text("vocabulary.yaml")))
