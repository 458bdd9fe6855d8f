"""Pairs of products that agree in all named attributes but one or two.

Products with the same values form a group. For each change (a set of attributes), the groups that agree in everything
else form a bucket, so that a product's counterparts are found without comparing all pairs. The counterparts of a
relative change are in the bucket that the reference's group would be in after the change.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from mlcl_cli.catalog.products import Column, Products
from mlcl_cli.catalog.relative import Relative
from mlcl_cli.seeding import derive_seed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Numbers: TypeAlias = NDArray[np.int64]

# Numbers of the attributes that change, ascending; relative changes are numbered after all attributes.
Change: TypeAlias = tuple[int, ...]

SPLITS = ("train", "val")
MIN_CANDIDATES = 32  # of a larger bucket, each product chooses among a sample of this size


@dataclass(frozen=True, kw_only=True)
class Rules:
    """How many attributes may change, how many pairs a reference may have, and how many targets are too many.

    Each product belongs to the validation split with the probability `val_fraction`.
    """

    changes: int = 1
    per_product: int = 4
    max_targets: int = 5
    val_fraction: float = 0.1
    seed: int = 0


class Pair(NamedTuple):
    """A reference and its equally right targets, as numbers of products; all are in the same split."""

    reference: int
    targets: Sequence[int]
    change: Change
    split: str


@dataclass(frozen=True)
class _Groups:
    """Groups of products in the same split that agree in all columns, and the number of each product's group.

    `members` holds the products group by group, and `starts` where each group begins in it; `codes` the groups' values
    by attribute. `fixed` numbers what never changes: the split and the value of the column `within`.
    """

    of_product: "Numbers"
    members: "Numbers"
    starts: "Numbers"
    codes: "Sequence[Numbers]"
    fixed: "Numbers"
    is_val: "NDArray[np.bool_]"

    def at(self, group: int) -> list[int]:
        """The products of a group."""
        products: list[int] = self.members[self.starts[group] : self.starts[group + 1]].tolist()
        return products

    def split(self, group: int) -> str:
        """The split that a group's products belong to."""
        return SPLITS[int(self.is_val[group])]


@dataclass(frozen=True)
class _Buckets:
    """The buckets of one change: each group's bucket, and those groups of each bucket that are small enough as targets.

    `ambiguous` counts the pairs of a reference and new values that too many products fit.
    """

    of_group: "Numbers"
    groups: "Numbers"
    starts: "Numbers"
    ambiguous: int

    def usable(self, group: int) -> "Numbers":
        """The possible targets in the bucket of a group, which may be among them."""
        bucket = self.of_group[group]
        return self.groups[self.starts[bucket] : self.starts[bucket + 1]]


@dataclass
class PairCounts:
    """How many pairs each split has, make each change, and change each attribute to each value; what was not used.

    `without_pair` counts the products that are no reference, since none differs from them in the right way; `ambiguous`
    counts, by change, the pairs of a reference and new values that more products fit than may be targets.
    """

    splits: dict[str, int]
    changes: dict[Change, int]
    values: Sequence[list[int]]
    ambiguous: Mapping[Change, int]
    without_pair: int = 0


class Pairing:
    """Makes the pairs of a catalog, once; `counts` counts those made so far."""

    def __init__(self, products: Products, rules: Rules, relative: Sequence[Relative] = ()) -> None:
        self._groups = _find_groups(products, rules)
        self._plain = len(products.attributes)
        changes = _find_changes(self._plain, relative, rules.changes)
        plain = [change for change in changes if max(change) < self._plain]
        self._buckets = _find_buckets(self._groups, plain, rules.max_targets)
        for change in changes[len(plain) :]:
            parts = [relative[number - self._plain] for number in change if number >= self._plain]
            fixed = [number for number in change if number < self._plain]
            self._buckets[change] = _find_relative_buckets(
                self._groups, products.attributes, parts, fixed, rules.max_targets
            )
        self._changed = [[number] for number in range(self._plain)] + [sorted(part.attributes) for part in relative]
        values = [[0] * len(column.values) for column in products.attributes]
        ambiguous = {change: buckets.ambiguous for change, buckets in self._buckets.items()}
        self.counts = PairCounts(dict.fromkeys(SPLITS, 0), dict.fromkeys(changes, 0), values, ambiguous)
        self._per_product = rules.per_product
        self._draw = random.Random(derive_seed(rules.seed, "pairs"))
        self._codes = [codes.tolist() for codes in self._groups.codes]  # read one by one

    def pairs(self) -> Iterator[list[Pair]]:
        """The pairs of each product as reference, in random order of the products.

        Each pair makes the change that was made least so far, to the values that were least used.
        """
        order = list(range(len(self._groups.of_product)))
        self._draw.shuffle(order)
        for reference in order:
            group = int(self._groups.of_product[reference])
            options = {change: self._targets(change, group) for change in self._buckets}
            options = {change: targets for change, targets in options.items() if targets}
            self.counts.without_pair += not options
            pairs: list[Pair] = []
            while options and len(pairs) < self._per_product:
                change = min(options, key=self.counts.changes.__getitem__)
                target = self._least_used(change, options[change])
                options[change].remove(target)
                if not options[change]:
                    del options[change]
                pairs.append(self._count(Pair(reference, self._groups.at(target), change, self._groups.split(group))))
            yield pairs

    def _targets(self, change: Change, group: int) -> list[int]:
        """Groups that differ from `group` in every attribute of `change` and in nothing else."""
        bucket = self._buckets[change].usable(group)
        limit = max(MIN_CANDIDATES, self._per_product + 1)  # the group itself may be drawn
        if len(bucket) > limit:
            drawn = bucket[self._draw.sample(range(len(bucket)), limit)]
            if targets := self._differing(change, group, drawn.tolist()):
                return targets
        return self._differing(change, group, bucket.tolist())

    def _count(self, pair: Pair) -> Pair:
        self.counts.splits[pair.split] += 1
        self.counts.changes[pair.change] += 1
        target = self._groups.of_product[pair.targets[0]]
        for attribute in self._attributes(pair.change):
            self.counts.values[attribute][self._codes[attribute][target]] += 1
        return pair

    def _attributes(self, change: Change) -> list[int]:
        """All attributes that a change gives new values."""
        return [attribute for part in change for attribute in self._changed[part]]

    def _differing(self, change: Change, group: int, others: Sequence[int]) -> list[int]:
        if len(change) == 1 and change[0] < self._plain:
            return [other for other in others if other != group]
        columns = [self._codes[attribute] for attribute in change if attribute < self._plain]
        return [other for other in others if all(codes[other] != codes[group] for codes in columns)]

    def _least_used(self, change: Change, targets: Sequence[int]) -> int:
        draw = self._draw.random
        used = [(self.counts.values[attribute], self._codes[attribute]) for attribute in self._attributes(change)]
        return min(targets, key=lambda target: (sum(counts[codes[target]] for counts, codes in used), draw()))


def _find_changes(attributes: int, relative: Sequence[Relative], most: int) -> list[Change]:
    """All changes of up to `most` parts that concern different attributes; those without a relative part come first."""
    concerned = [frozenset([number]) for number in range(attributes)] + [part.concerned for part in relative]
    changes = [
        change
        for size in range(1, most + 1)
        for change in combinations(range(len(concerned)), size)
        if len(frozenset[int]().union(*(concerned[part] for part in change))) == sum(len(concerned[p]) for p in change)
    ]
    return sorted(changes, key=lambda change: max(change) >= attributes)


def _find_groups(products: Products, rules: Rules) -> _Groups:
    import numpy as np

    limit = rules.val_fraction * 2**63
    in_val = np.array([derive_seed(rules.seed, "split", image) < limit for image in products.images])
    fixed = [in_val.astype(np.int64)]
    if products.within is not None:
        fixed.append(np.frombuffer(products.within.codes, np.int64))
    attributes = [np.frombuffer(column.codes, np.int64) for column in products.attributes]
    numbers = _number([*fixed, *attributes])
    members = np.argsort(numbers, kind="stable")
    starts = _starts(numbers)
    first = members[starts[:-1]]
    codes = [column[first] for column in attributes]
    return _Groups(numbers, members, starts, codes, _number(fixed)[first], in_val[first])


def _find_buckets(groups: _Groups, changes: Sequence[Change], max_targets: int) -> dict[Change, _Buckets]:
    import numpy as np

    sizes = np.diff(groups.starts)
    is_usable = sizes <= max_targets
    buckets: dict[Change, _Buckets] = {}
    products: dict[Change, Numbers] = {(): sizes}  # of each group's bucket; without any change, that is the group
    for change in changes:
        same = [codes for attribute, codes in enumerate(groups.codes) if attribute not in change]
        of_group = _number([groups.fixed, *same])
        products[change] = np.bincount(of_group, sizes).astype(np.int64)[of_group]
        # The products that differ from a group in every attribute of the change, by inclusion and exclusion.
        differing = sum(
            (-1) ** (len(change) - size) * products[part]
            for size in range(len(change) + 1)
            for part in combinations(change, size)
        )
        usable = np.flatnonzero(is_usable)
        in_order = usable[np.argsort(of_group[usable], kind="stable")]
        starts = _starts(of_group[usable], int(of_group.max()) + 1)
        buckets[change] = _Buckets(of_group, in_order, starts, int(np.sum(differing, where=~is_usable)))
    return buckets


def _find_relative_buckets(
    groups: _Groups, columns: Sequence[Column], parts: Sequence[Relative], plain: Sequence[int], max_targets: int
) -> _Buckets:
    """The buckets of a change with relative `parts`, and at most one `plain` attribute."""
    import numpy as np

    moved, is_possible = list(groups.codes), np.ones(len(groups.fixed), np.bool_)
    for part in parts:
        moved, fits = part.apply(columns, moved)
        is_possible &= fits
    same = [number for number in range(len(moved)) if number not in plain]
    both = _number(
        [np.tile(groups.fixed, 2), *(np.concatenate([groups.codes[number], moved[number]]) for number in same)]
    )
    of_group, reached = np.split(both, 2)
    none = int(both.max()) + 1
    reached = np.where(is_possible, reached, none)
    sizes = np.diff(groups.starts)
    usable = np.flatnonzero(sizes <= max_targets)
    in_order = usable[np.argsort(of_group[usable], kind="stable")]
    # The products that reach a group, except those that have its value of the plain attribute already.
    arriving = np.bincount(reached, sizes, minlength=none + 1)[of_group]
    for attribute in plain:
        number = _number([np.concatenate([of_group, reached]), np.tile(groups.codes[attribute], 2)])
        staying = np.bincount(number[len(sizes) :], sizes, minlength=int(number.max()) + 1)
        arriving = arriving - staying[number[: len(sizes)]]
    ambiguous = int(np.sum(arriving, where=sizes > max_targets))
    return _Buckets(reached, in_order, _starts(of_group[usable], none + 1), ambiguous)


def _number(columns: "Sequence[Numbers]") -> "Numbers":
    """Number the distinct combinations of the columns' values, and give each row its number."""
    import numpy as np

    numbers = np.zeros(len(columns[0]), np.int64)
    for codes in columns:
        numbers = np.unique(numbers * (codes.max() + 1) + codes, return_inverse=True)[1]
    return numbers


def _starts(numbers: "Numbers", count: int = 0) -> "Numbers":
    """Where the rows of each number begin once the rows are sorted by their numbers; the last entry is their count."""
    import numpy as np

    return np.concatenate([[0], np.cumsum(np.bincount(numbers, minlength=count))])
