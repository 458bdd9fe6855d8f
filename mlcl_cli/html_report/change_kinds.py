"""The kinds of change that a modifier asks for, guessed from its words, in the same way for every data set."""

import re
from collections.abc import Mapping

WORDS: Mapping[str, str] = {
    "color": """black blue brown beige burgundy colou?r colou?red colou?rful colou?rs cream dark darker gold golden
        gr[ae]y green lighter maroon navy neon orange pink purple red shade silver tan teal turquoise violet white
        yellow bright brighter pale paler""",
    "pattern or print": """argyle checked checkered design dots? dotted floral flowers? flowery graphic image lettering
        letters logo paisley pattern patterned patterns plaid plain polka print printed prints solid striped
        stripes? text words writing zebra leopard""",
    "shape or size": """ankle-?high bigger boxier button buttons collar fitted flowing heel heels hem high-?heeled
        higher large larger length long longer longer-sleeved loose looser low lower narrow narrower neck neckline
        v-neck open pointed pointy round rounder shape short shorter shorter-sleeved size skirt sleeveless sleeves?
        small smaller sole square straps? strapless strappy tall taller thick thicker thin thinner tight tighter toe
        toes wide wider knee-?high zoom""",
    "material": """canvas cotton denim embellish(?:ed|ment) fabric fur furry glass glossy jewel(?:ed|s)? lace lacy
        leather material mesh metal metallic patent plastic satin sheer shiny silk silky sparkly suede texture
        textured velvet wood wooden woven knit""",
    "style": """bold casual classy conservative dressier dressy edgier edgy elegant ethnic fancier fancy feminine
        flashy formal girly modern modest revealing romantic sexier sexy simple simpler sophisticated sporty stylish
        traditional trendy vintage youthful""",
    "number": """alone another both fewer four five many multiple number
        (?:^|has_|have_|just_|only_|shows?_|to_|with_)one only pair single six several ten three two
        second third""",
    "addition or removal": """add added adds add?ing addition delete exclude excluding extra include including includes
        missing no not remove removed removes removing replace replaced take without minus""",
    "place or view": """above against angle area around away background back behind below beside camera center centre
        close close-?up closer direction facing faces floor focus forest front grass grassy ground indoors? inside
        lawn left looking lying laying middle near outdoors? outside position right room side sitting sits snow
        standing stands surface table top towards? view wall water""",
    "type of object": """different another_(?:kind|breed|type|species) breeds? brands? species type change_the
        (?:is|are)_an?\\b.*\\binstead_of instead_of_an?""",
}

# Alternatives are separated by whitespace; an underscore stands for a space within one.
_PATTERNS = {
    kind: re.compile(rf"\b(?:{'|'.join(words.split())})\b".replace("_", r"\s"), re.IGNORECASE)
    for kind, words in WORDS.items()
}
OTHER = "other"


def kinds_of(caption: str) -> tuple[str, ...]:
    """The kinds of change that `caption` names, in a fixed order; OTHER alone where none is recognized."""
    return tuple(kind for kind, pattern in _PATTERNS.items() if pattern.search(caption)) or (OTHER,)
