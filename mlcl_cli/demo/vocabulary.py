"""The catalogue's kinds of things in words: three of garments, shoes, and scenes."""

from collections.abc import Mapping

from mlcl_cli.demo import footwear, garments, scenes
from mlcl_cli.demo.attributes import Change, Item, Kind, match, one_step, other_value, swap

HUES = tuple(garments.SHADES)
TONES = ("light", "bright", "dark")
PATTERNS = ("plain", "striped", "checked", "dotted")
SLEEVES = ("no", "short", "long")
NECKS = ("round", "V", "square")
HEMS = ("mini", "knee-length", "floor-length")
COLLARS = ("band", "pointed", "white")
POCKETS = ("no pocket", "one pocket", "two pockets")
TRIMS = ("no trim", "a bow", "a buckle", "a star")
NUMBERS = tuple(scenes.SPOTS)

CLOTH: tuple[Change, ...] = (
    other_value("hue", HUES, "is {new} instead of {old}", "is {new}", "comes in {new}, not {old}."),
    one_step("shade", TONES, ("is darker", "has a darker colour"), ("is lighter", "has a lighter colour")),
    other_value("pattern", PATTERNS, "is {new} instead of {old}", "is {new}", "has a {new} look"),
)
LONGER = (("has longer sleeves", "with more sleeve"), ("has shorter sleeves", "with less sleeve"))
NECKLINE = other_value("neckline", NECKS, "has a {new} neckline", "with a {new} neck instead of a {old} one")

DRESS = Kind(
    {"hue": HUES, "shade": TONES, "pattern": PATTERNS, "sleeves": SLEEVES, "neckline": NECKS, "hem": HEMS},
    (
        *CLOTH,
        one_step("sleeves", SLEEVES, *LONGER),
        NECKLINE,
        one_step("hem", HEMS, ("is longer", "has a lower hem."), ("is shorter", "has a higher hem.")),
    ),
    "a {shade} {hue} {pattern} {hem} dress with {sleeves} sleeves and a {neckline} neckline",
    ("{shade} {hue}", "{hue}", "{pattern}", "{hem}", "{sleeves} sleeves", "{neckline} neckline", "a {hem} dress"),
)
SHIRT = Kind(
    {"hue": HUES, "shade": TONES, "pattern": PATTERNS, "sleeves": SLEEVES[1:], "collar": COLLARS, "pockets": POCKETS},
    (
        *CLOTH,
        one_step("sleeves", SLEEVES[1:], *LONGER),
        other_value("collar", COLLARS, "has a {new} collar", "with a {new} collar, not a {old} one"),
        one_step("pockets", POCKETS, ("has one more pocket", "has more pockets"), ("has fewer pockets",)),
    ),
    "a {shade} {hue} {pattern} shirt with {sleeves} sleeves, a {collar} collar and {pockets}",
    ("{shade} {hue}", "{hue}", "{pattern}", "{sleeves} sleeves", "{collar} collar", "{pockets}", "a {hue} shirt"),
)
TOPTEE = Kind(
    {
        "hue": HUES,
        "shade": TONES,
        "pattern": (*PATTERNS, "starry"),
        "sleeves": SLEEVES,
        "neckline": NECKS,
        "length": ("cropped", "long"),
    },
    (
        *CLOTH,
        one_step("sleeves", SLEEVES, *LONGER),
        NECKLINE,
        one_step("length", ("cropped", "long"), ("is longer", "covers more"), ("is shorter", "is more cropped")),
    ),
    "a {shade} {hue} {pattern} {length} top with {sleeves} sleeves and a {neckline} neckline",
    ("{shade} {hue}", "{hue}", "{pattern}", "{length}", "{sleeves} sleeves", "{neckline} neckline", "a {length} top"),
)
GARMENTS: Mapping[str, Kind] = {"dress": DRESS, "shirt": SHIRT, "toptee": TOPTEE}


SHOE = Kind(
    {
        "kind": tuple(footwear.UPPERS),
        "colour": tuple(footwear.COLOURS),
        "sole": tuple(footwear.COLOURS),
        "heel": tuple(footwear.HEELS),
        "trim": TRIMS,
    },
    (
        other_value("kind", tuple(footwear.UPPERS), "is a {new}", "is a {new} instead of a {old}"),
        other_value("colour", tuple(footwear.COLOURS), "is {new}", "is {new} rather than {old}"),
        other_value("sole", tuple(footwear.COLOURS), "has a {new} sole", "has a {new} sole instead of a {old} one"),
        one_step("heel", tuple(footwear.HEELS), ("has a higher heel", "is higher"), ("has a lower heel", "is lower")),
        other_value("trim", TRIMS, "has {new}", "has {new} instead of {old}"),
        swap("colour", "sole", "has the colours of shoe and sole swapped", "is the same with its two colours reversed"),
        swap("colour", "sole", "trades the colours of shoe and sole", "has its two colours the other way round"),
        match("sole", "colour", "has a sole in the colour of the shoe", "has a matching sole"),
        match("colour", "sole", "is all in the colour of its sole", "has the colour of its own sole"),
    ),
    "a {colour} {kind} with a {sole} sole, a {heel} heel and {trim}",
    ("{colour}", "{colour} {kind}", "{kind}", "{sole} sole", "{heel} heel", "{trim}"),
)


def _scene_words(item: Item) -> Item:
    where = {"meadow": "on a meadow", "beach": "on the beach", "snow": "in the snow", "room": "in a room"}
    several = "" if item["count"] == "one" else "s"
    return {
        **item,
        "place": where[item["place"]],
        "animal": item["animal"] + several,
        "time": "at night" if item["time"] == "night" else "by day",
    }


SCENE = Kind(
    {
        "animal": tuple(scenes.ANIMALS),
        "count": NUMBERS,
        "colour": tuple(scenes.COLOURS),
        "place": tuple(scenes.PLACES),
        "time": ("day", "night"),
        "thing": tuple(scenes.COMPANIONS),
        "thing_colour": tuple(scenes.COLOURS),
    },
    (
        other_value("animal", tuple(scenes.ANIMALS), "show the {new} instead of the {old}", "replace {old} by {new}"),
        one_step("count", NUMBERS, ("add another {animal}", "show one more {animal}"), ("show one {animal} less",)),
        other_value("count", NUMBERS, "show {new} instead of {old}", "make it {new}"),
        other_value("colour", tuple(scenes.COLOURS), "make the {animal} {new}", "{new} {animal} instead of {old}"),
        other_value("place", tuple(scenes.PLACES), "move it to the {new}", "the {new} instead of the {old}"),
        other_value("time", ("day", "night"), "the same at {new}", "make it {new}"),
        other_value("thing", tuple(scenes.COMPANIONS), "replace the {old} by the {new}", "with the {new}"),
        other_value("thing_colour", tuple(scenes.COLOURS), "make the {thing} {new}", "with the {thing} in {new}"),
        swap(
            "colour",
            "thing_colour",
            "swap the colours of {animal} and {thing}",
            "{animal} and {thing} trade colours",
        ),
        swap("colour", "thing_colour", "exchange the colours of {thing} and {animal}"),
        match("thing_colour", "colour", "give the {thing} the colour of the {animal}"),
        match("colour", "thing_colour", "give the {animal} the colour of the {thing}"),
    ),
    "{count} {colour} {animal} with a {thing_colour} {thing} {place} {time}",
    ("{colour} {animal}", "{count} {animal}", "{animal}", "{place}", "{time}", "{thing}", "{thing_colour} {thing}"),
    _scene_words,
)
