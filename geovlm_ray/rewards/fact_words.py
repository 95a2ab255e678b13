"""Vocabulary of facts: numbers, directions, colours, negation and objects of remote-sensing captions.

North is up, as in map-projected images, so north and top are the same direction. Words that caption datasets use
interchangeably ("house" and "villa", "bareland" and "desert") map to one object.
"""

from __future__ import annotations

Fact = tuple[str, str]

_NUMBERS = (
    *("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen"),
    *("fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
)
_MORE_NUMBERS = {"pair": "2", "couple": "2", "both": "2", "dozen": "12", "zero": "0"}
_DIRECTIONS = {
    "left": "left west western westward leftmost",
    "right": "right east eastern eastward rightmost",
    "top": "top upper above north northern northward topmost",
    "bottom": "bottom lower below south southern southward bottommost",
    "center": "center centre central middle",
    "top left": "northwest northwestern",
    "top right": "northeast northeastern",
    "bottom left": "southwest southwestern",
    "bottom right": "southeast southeastern",
}
_COLOURS = {
    "red": "red reddish", "green": "green greenish", "blue": "blue bluish", "white": "white whitish",
    "grey": "grey gray greyish grayish", "black": "black", "brown": "brown brownish", "yellow": "yellow yellowish",
    "orange": "orange", "beige": "beige", "silver": "silver", "purple": "purple", "pink": "pink",
}  # fmt: skip
_NEGATION = "no not none nothing never without unchanged identical neither nor absent cannot"
_OBJECTS = {
    "airport": "airport,runway,terminal", "bare ground": "bareland,bare land,bare ground,bare soil,desert,wasteland",
    "baseball field": "baseball,baseball field,baseball diamond,diamond", "beach": "beach,sand",
    "bridge": "bridge,overpass,viaduct,flyover", "building": "building,house,villa,mansion,home,apartment,roof,rooftop",
    "chimney": "chimney,smokestack", "church": "church,cathedral,chapel", "container": "container", "crane": "crane",
    "court": "court,tennis court,basketball court", "dam": "dam,reservoir", "excavator": "excavator",
    "factory": "factory,industrial", "farmland": "farmland,field,cropland,farm,crop,agricultural",
    "football field": "football,football field,soccer,soccer field,playground", "golf course": "golf,golf course",
    "grass": "grass,grassland,lawn,meadow", "harbor": "harbor,harbour,port,dock,pier,marina",
    "helicopter": "helicopter",
    "mountain": "mountain,hill,ridge", "parking lot": "parking lot,parking,car park", "path": "path,trail",
    "plane": "plane,airplane,aircraft,aeroplane,jet", "pool": "pool,swimming pool", "residential": "residential",
    "road": "road,street,highway,lane,freeway", "roundabout": "roundabout", "school": "school,campus",
    "ship": "ship,boat,vessel,yacht", "square": "square,plaza", "stadium": "stadium,arena", "station": "station",
    "storage tank": "storage tank,tank,silo", "train": "train,railway,rail", "tree": "tree,forest,wood,woodland,jungle",
    "urban": "urban,city,town", "vehicle": "vehicle,car,truck,van,bus,trailer",
    "water": "water,river,lake,sea,pond,ocean",
    "windmill": "windmill,wind turbine,turbine", "park": "park,garden", "intersection": "intersection,crossroad",
}  # fmt: skip
_VOCABULARY: dict[str, tuple[Fact, ...]] = {
    **{word: (("number", str(n)),) for n, word in enumerate(_NUMBERS, 2)},
    **{word: (("number", n),) for word, n in _MORE_NUMBERS.items()},
    **{
        spelling: tuple(("direction", name) for name in names.split())
        for names, spellings in _DIRECTIONS.items()
        for spelling in spellings.split()
    },
    **{spelling: (("colour", name),) for name, spellings in _COLOURS.items() for spelling in spellings.split()},
    **{spelling: (("object", name),) for name, spellings in _OBJECTS.items() for spelling in spellings.split(",")},
    **dict.fromkeys(_NEGATION.split(), (("negation", "not"),)),
}
PAIR_STARTS = frozenset(term.split()[0] for term in _VOCABULARY if " " in term)
"""First words of two-word terms."""

_PLURALS = (("", ""), ("s", ""), ("es", ""), ("ies", "y"))


def facts_of(term: str) -> tuple[Fact, ...]:
    """Facts stated by a lower-case word or two-word term; empty for most."""
    for suffix, singular in _PLURALS:
        if term.endswith(suffix):
            facts = _VOCABULARY.get(term.removesuffix(suffix) + singular)
            if facts:
                return facts
    return ()
