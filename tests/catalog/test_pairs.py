"""Pairs of products, compared with a naive search over all pairs."""

import itertools
import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlcl_cli.catalog.pairs import MIN_CANDIDATES, Pair, Pairing, Rules
from mlcl_cli.catalog.products import Products, read_products
from mlcl_cli.catalog.relative import Move, Relative
from mlcl_cli.data.table_files import TableFile
from mlcl_cli.errors import DataError
from mlcl_cli.seeding import derive_seed

Row = Mapping[str, str]
Option = tuple[tuple[int, ...], tuple[str, ...]]  # what changes, and all values afterwards
Catalog = tuple[Products, Rules, list[Relative]]
NAMES = ("color", "sleeve", "material")


def products_of(rows: Sequence[Row], attributes: Sequence[str], within: str | None = None) -> Products:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "products.jsonl")
        path.write_text("\n".join(json.dumps({"image": f"{number}.jpg", **row}) for number, row in enumerate(rows)))
        return read_products(TableFile(path), "image", attributes, within)


@st.composite
def catalogs(draw: st.DrawFn) -> Catalog:
    attributes = NAMES[: draw(st.integers(1, 3))]
    value = st.sampled_from(["a", "b", "b", "c", ""])
    row = st.fixed_dictionaries({**dict.fromkeys(attributes, value), "kind": st.sampled_from(["x", "x", "y"])})
    rows = draw(st.lists(row, min_size=2, max_size=24))
    rules = Rules(
        changes=min(draw(st.integers(1, 2)), len(attributes)),
        per_product=draw(st.integers(1, 6)),
        max_targets=draw(st.integers(1, 4)),
        val_fraction=draw(st.sampled_from([0, 0.3, 1])),
        seed=draw(st.integers(0, 5)),
    )
    varied = [dict.fromkeys(attributes, "a") | {"kind": "x"}, dict.fromkeys(attributes, "b") | {"kind": "x"}]
    products = products_of([*varied, *rows], attributes, draw(st.sampled_from([None, "kind"])))
    return products, rules, draw(st.lists(relative_changes(len(attributes)), max_size=3))


@st.composite
def relative_changes(draw: st.DrawFn, attributes: int) -> Relative:
    number = draw(st.integers(0, attributes - 1))
    step = Move(number, number, draw(st.sampled_from([{"a": "b", "b": "c"}, {"c": "a"}, {"b": "unknown"}])))
    others = [other for other in range(attributes) if other != number]
    if not others or draw(st.booleans()):
        return Relative("step", [step], ["more"], "")
    other = draw(st.sampled_from(others))
    take = [Move(number, other), *([Move(other, number)] if draw(st.booleans()) else [])]
    return Relative("take", take, ["like the other"], "")


def values_of(products: Products, product: int) -> tuple[str, ...]:
    return tuple(list(column.values)[column.codes[product]] for column in products.attributes)


def all_changes(attributes: int, rules: Rules, relative: Sequence[Relative]) -> Iterator[tuple[int, ...]]:
    concerned = [{number} for number in range(attributes)]
    concerned += [{number for move in part.moves for number in (move.attribute, move.source)} for part in relative]
    for size in range(1, rules.changes + 1):
        for change in itertools.combinations(range(len(concerned)), size):
            if all(not concerned[one] & concerned[other] for one, other in itertools.combinations(change, 2)):
                yield change


def changed_attributes(change: tuple[int, ...], attributes: int, relative: Sequence[Relative]) -> list[int]:
    numbers = [[part] for part in change if part < attributes]
    numbers += [[move.attribute for move in relative[part - attributes].moves] for part in change if part >= attributes]
    return [number for part in numbers for number in part]


def leads_to(old: Sequence[str], new: Sequence[str], change: tuple[int, ...], relative: Sequence[Relative]) -> bool:
    expected = list(old)
    for part in change:
        if part < len(old):
            expected[part] = new[part] if new[part] != old[part] else ""
        else:
            for move in relative[part - len(old)].moves:
                source = old[move.source]
                value = source if move.following is None else move.following.get(source, "")
                expected[move.attribute] = value if value != old[move.attribute] else ""
    return expected == list(new)


def all_options(catalog: Catalog, splits: Sequence[str], reference: int) -> dict[Option, set[int]]:
    """By change and new values, every product that is equally right; compares `reference` with all others."""
    products, rules, relative = catalog
    options: dict[Option, set[int]] = {}
    old = values_of(products, reference)
    for other in range(len(products.images)):
        if splits[other] != splits[reference]:
            continue
        if products.within and products.within.codes[other] != products.within.codes[reference]:
            continue
        new = values_of(products, other)
        for change in all_changes(len(old), rules, relative):
            if leads_to(old, new, change, relative):
                options.setdefault((change, new), set()).add(other)
    return options


def option_of(products: Products, pair: Pair) -> Option:
    return pair.change, values_of(products, pair.targets[0])


def splits_of(products: Products, rules: Rules) -> list[str]:
    draws = [derive_seed(rules.seed, "split", image) / 2**63 for image in products.images]
    return ["val" if number < rules.val_fraction else "train" for number in draws]


@given(catalogs())
def test_pairs_equal_those_of_a_naive_search(catalog: Catalog) -> None:
    products, rules, relative = catalog
    splits = splits_of(products, rules)
    pairing = Pairing(products, rules, relative)
    made = [pair for pairs in pairing.pairs() for pair in pairs]
    ambiguous, without = Counter[tuple[int, ...]](), 0
    for reference in range(len(products.images)):
        options = all_options(catalog, splits, reference)
        usable = {option: targets for option, targets in options.items() if len(targets) <= rules.max_targets}
        ambiguous.update(change for change, values in options.keys() - usable.keys())
        without += not usable
        pairs = {option_of(products, pair): pair for pair in made if pair.reference == reference}
        assert len(pairs) == sum(pair.reference == reference for pair in made) == min(rules.per_product, len(usable))
        for option, pair in pairs.items():
            assert sorted(pair.targets) == sorted(usable[option])
            assert pair.split == splits[reference]
    counts = pairing.counts
    assert counts.without_pair == without
    assert {change: count for change, count in counts.ambiguous.items() if count} == ambiguous
    assert counts.changes == {change: sum(pair.change == change for pair in made) for change in counts.changes}
    assert sum(counts.splits.values()) == len(made)


@given(catalogs())
def test_least_used_change_and_value_come_first(catalog: Catalog) -> None:
    products, rules, relative = catalog
    splits = splits_of(products, rules)
    changes, values = Counter[tuple[int, ...]](), Counter[tuple[int, str]]()

    def used(option: Option) -> int:
        return sum(values[key] for key in new_values(option))

    def new_values(option: Option) -> list[tuple[int, str]]:
        numbers = changed_attributes(option[0], len(products.attributes), relative)
        return [(number, option[1][number]) for number in numbers]

    for pairs in Pairing(products, rules, relative).pairs():
        left = {
            option
            for option, targets in (all_options(catalog, splits, pairs[0].reference) if pairs else {}).items()
            if len(targets) <= rules.max_targets
        }
        for pair in pairs:
            option = option_of(products, pair)
            assert changes[pair.change] == min(changes[change] for change, _ in left)
            assert used(option) == min(used(other) for other in left if other[0] == pair.change)
            left.remove(option)
            changes[pair.change] += 1
            values.update(new_values(option))


def made(rows: Sequence[Row], attributes: Sequence[str], rules: Rules) -> Iterator[Pair]:
    return (pair for pairs in Pairing(products_of(rows, attributes), rules).pairs() for pair in pairs)


def test_large_bucket_is_sampled_and_its_values_stay_balanced() -> None:
    rows = [{"color": f"color {number}"} for number in range(5 * MIN_CANDIDATES)]
    counts = Counter(pair.targets[0] for pair in made(rows, ["color"], Rules(val_fraction=0)))
    assert sum(counts.values()) == 4 * len(rows)
    assert set(counts.values()) <= {3, 4, 5}


def test_rare_counterpart_in_a_large_bucket_is_found() -> None:
    rows = [{"color": "red", "size": str(number)} for number in range(5 * MIN_CANDIDATES)]
    rows.append({"color": "blue", "size": "other"})
    pairs = made(rows, ["color", "size"], Rules(changes=2, val_fraction=0))
    assert sum(pair.change == (0, 1) and pair.targets == [len(rows) - 1] for pair in pairs) == len(rows) - 1


def test_values_are_balanced_although_one_is_common() -> None:
    rows = [{"color": "red" if number % 10 else f"color {number}"} for number in range(100)]
    pairing = Pairing(products_of(rows, ["color"]), Rules(per_product=1, max_targets=100, val_fraction=0))
    assert sum(map(len, pairing.pairs())) == 100
    assert min(pairing.counts.values[0]) >= 5  # the common value is new for ten products only


def test_ambiguous_pairs_of_a_relative_change_differ_in_the_other_attribute_too() -> None:
    rows = [{"heel": heel, "color": "red"} for heel in ("low", "high", "high")] + [{"heel": "high", "color": "blue"}]
    higher = Relative("higher", [Move(0, 0, {"low": "high"})], ["is higher"], "")
    pairing = Pairing(products_of(rows, ["heel", "color"]), Rules(changes=2, max_targets=1, val_fraction=0), [higher])
    pairs = [(pair.reference, pair.targets, pair.change) for found in pairing.pairs() for pair in found]
    assert (0, [3], (1, 2)) in pairs
    assert pairing.counts.ambiguous[2,] == 1
    assert pairing.counts.ambiguous[1, 2] == 0


def test_seed_changes_pairs() -> None:
    rows = [{"color": f"color {number % 12}", "size": str(number % 5)} for number in range(60)]
    first, again, other = (list(made(rows, ["color", "size"], Rules(per_product=1, seed=seed))) for seed in (0, 0, 1))
    assert first == again
    assert {(pair.reference, *pair.targets) for pair in first} != {(pair.reference, *pair.targets) for pair in other}


def test_products_without_a_single_value_are_counted_by_column() -> None:
    rows = [{"color": "red", "size": "1"}, {"color": "blue", "size": "2"}, {"color": " ", "size": ""}, {"size": "2"}]
    products = products_of([*rows, {"color": ["red", "blue"], "size": "2"}], ["color", "size"])  # type: ignore[dict-item]
    assert products.images == ["0.jpg", "1.jpg"]
    assert (products.rows, products.empty, products.several) == (5, {"color": 2, "size": 1}, {"color": 1})


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"color": "red"}, {"color": "red"}], ["all products have the same color, 'red'", "--attributes"]),
        ([{"color": "red"}], ["1 product", "out of 1 row"]),
        ([{"color": "red"}, {"color": ""}, {"color": ""}], ["1 product", "out of 3 rows", "Leave out"]),
        (
            [{"color": "red"}, {"color": "blue", "image": "../b.jpg"}],
            ["line 2", "'../b.jpg' is not a valid image name"],
        ),
        ([{"color": "red"}, {"color": "blue", "image": "0.jpg"}], ["line 2", "repeats image '0.jpg'", "line 1"]),
        ([{"color": "red"}, {"color": "blue", "image": ""}], ["line 2", "expected one image, got none"]),
        ([{"color": "red"}, {"color": "\ud800"}], ["column color", "surrogate"]),
    ],
)
def test_unusable_table_is_refused_with_its_place(rows: list[Row], words: list[str]) -> None:
    with pytest.raises(DataError) as refused:
        products_of(rows, ["color"])
    assert all(word in str(refused.value) for word in words), str(refused.value)
