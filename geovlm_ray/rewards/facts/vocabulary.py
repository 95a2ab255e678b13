"""Vocabulary of facts: the facts that a word, or a term of several words, states.

North is up, as in map-projected images, so north and top are the same direction.
"""

from __future__ import annotations

import math

from geovlm_ray.rewards.facts.objects import OBJECTS

Fact = tuple[str, str]
"""Kind and value. The kinds are those of `ATTRIBUTES`, direction, change, negation and object."""

ATTRIBUTES = (
    *("number", "density", "colour", "material", "size", "width", "length", "height", "shape", "depth", "rank"),
    "distance",
)
"""Kinds of facts that an adjective or a number states of an object."""

_NUMBERS = (
    *("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen"),
    *("fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
)
_MORE_NUMBERS = {
    "1": "one,single,a single,only one,a,an",
    "2": "pair,pair of,a pair,a pair of,couple,a couple,couple of,a couple of",
    "12": "dozen,a dozen",
    "30": "thirty",
    "40": "forty",
    "50": "fifty",
    "60": "sixty",
    "70": "seventy",
    "80": "eighty",
    "90": "ninety",
    "100": "a hundred,hundred",
    "0": "zero",
}
_DENSITY = {
    "few": "few,a few,only a few,very few,a handful of,handful of,a small number of,small number of,hardly any,"
    "almost no,almost empty,nearly empty,scarce,scarcely,scattered few",
    "sparse": "sparse,sparsely,low density,sparsely populated,sparsely distributed,sparsely built,loosely,"
    "sparser,sparsest,emptier,less dense,less densely,less crowded,less busy,thinned,thinned out,thinning out",
    "medium": "medium density",
    "some": "some",
    "multiple": "various,multiple,a number of,a group of,a row of,a series of,a variety of,a cluster of",
    "several": "several",
    "many": "many,numerous,lots,lots of,a lot of,a lot,plenty of,plenty,a large number of,large number of,"
    "a great number of,a great many,great many,a multitude of,multitude of,a large amount of,abundant,"
    "heavy traffic,a great deal of,rows of many",
    "dense": "dense,densely,crowded,packed,densely packed,densely populated,densely built,high density,thick,lush,"
    "closely packed,tightly packed,compactly,crowding,full,denser,densest,thicker,thickened,busier,"
    "full of,filled,filled with,packed with,crowded with,busy",
    "dozens": "dozens,dozens of,tens of",
    "hundreds": "hundreds,hundreds of,thousands,thousands of,countless,innumerable",
}
QUANTITIES = {
    "few": (0, 5), "sparse": (0, 5), "medium": (5.5, 5.5), "some": (1, 40), "multiple": (2, math.inf),
    "several": (3, 20), "many": (6, math.inf), "dense": (6, math.inf), "dozens": (20, math.inf),
    "hundreds": (100, math.inf),
}  # fmt: skip
"""Least and greatest number that a value of the kind density allows; our definition."""

_DIRECTIONS = {
    "left": "left,west,western,westward,leftmost,left hand",
    "right": "right,east,eastern,eastward,rightmost,right hand",
    "top": "top,upper,above,north,northern,northward,topmost",
    "bottom": "bottom,lower,below,south,southern,southward,bottommost,beneath,underneath",
    "front": "in front of",
    "back": "behind,right behind,directly behind,at the back of,at the rear of",
    "center": "center,centre,central,middle,in the midst of",
    "top left": "northwest,northwestern,north west",
    "top right": "northeast,northeastern,north east",
    "bottom left": "southwest,southwestern,south west",
    "bottom right": "southeast,southeastern,south east",
}
_COLOURS = {
    "red": "red,reddish,maroon,crimson",
    "green": "green,greenish,greener,atrovirens",
    "blue": "blue,bluish,turquoise,teal,cyan,navy",
    "white": "white,whitish",
    "grey": "grey,gray,greyish,grayish,silver,silvery",
    "black": "black,blackish",
    "brown": "brown,brownish,browner",
    "yellow": "yellow,yellowish,golden,gold",
    "orange": "orange",
    "beige": "beige,khaki,tan,cream",
    "purple": "purple,violet",
    "pink": "pink,pinkish",
}
_MATERIALS = {
    "wood": "wooden,timber",
    "metal": "metal,metallic,steel,iron",
    "concrete": "concrete,cement",
    "brick": "brick",
    "glass": "glass",
    "tile": "tiled",
    "thatch": "thatched",
}
_ORDINALS = (
    *("first,1 st", "second,2 nd", "third,3 rd", "fourth,4 th", "fifth,5 th", "sixth,6 th", "seventh,7 th"),
    *("eighth,8 th", "ninth,9 th", "tenth,10 th"),
)
_SIZES = {
    ("size", "large"): "large,big,huge,giant,enormous,massive,vast,immense,extensive,sizeable,sizable,spacious,larger,"
    "bigger,largest,biggest,gigantic,large sized,great",
    ("size", "medium"): "medium,medium sized,mid sized,moderate,moderately sized,medium size",
    ("size", "small"): "small,tiny,little,miniature,compact,smaller,smallest,mini,small sized,a little",
    ("width", "wide"): "wide,broad,wider,broader,widest",
    ("width", "narrow"): "narrow,narrower,narrowest,slim,thin",
    ("length", "long"): "long,longer,longest,lengthy",
    ("length", "short"): "short",
    ("height", "high"): "tall,taller,tallest,high,higher,highest,high rise,towering",
    ("height", "low"): "low,lowest,low rise,become lower,became lower,becomes lower,got lower,"
    "is lower,are lower,was lower,were lower",
    ("shape", "curved"): "curved,winding,curving,meandering,twisting,zigzag",
    ("shape", "straight"): "straight",
    ("shape", "round"): "round,circular,oval",
    ("shape", "rectangular"): "rectangular",
    ("depth", "deep"): "deeper",
    ("depth", "shallow"): "shallow,shallower",
    ("rank", "last"): "last",
    ("distance", "near"): "closest,nearest,closer",
    ("distance", "far"): "farthest,furthest,farther,most distant,far away",
    **{("rank", str(n)): terms for n, terms in enumerate(_ORDINALS, 1)},
}
NEGATION = (("negation", "not"),)
_NEGATION = (
    "no,not,none,nothing,never,without,neither,nor,cannot,absent,absence of,lack of,lack,lacking,free of,devoid of,"
    "empty,undamaged,unaffected,unharmed,intact,unchanged,deserted,vacant"
)
_CHANGES = {
    "gain": "built,constructed,erected,appear,appeared,appearing,emerge,emerged,emerging,add,added,planted,installed,"
    "completed,established,developed,arrived,arrive,grown,grew,grow,growing,increased,increase,increasing,expanded,"
    "expand,expansion,enlarged,extended,widened,risen,rose,rise,restored,repaired,rebuilt,renovated,reclaimed,"
    "reconstructed,built up,shows up,show up,showed up,set up,put up,new,newly,more,construct,advanced,deployed,"
    "become larger,became larger,becomes larger,become bigger,became bigger,raised,introduced,regrown,"
    "become wider,became wider,construction,constructing,additional,sprung up,has come up,have come up",
    "loss": "removed,remove,removing,removal,demolished,demolish,demolition,destroyed,disappear,disappeared,"
    "disappearing,vanish,vanished,cleared,clearing,cut,cut down,felled,razed,dismantled,torn down,tear down,"
    "pulled down,knocked down,gone,lost,shrunk,shrank,shrink,shrinking,shrunken,reduced,reduce,decreased,"
    "decrease,decreasing,narrowed,receded,recede,retreated,fallen,fell,dropped,harvested,collapsed,eroded,deforested,deforestation,"
    "has left,have left,had left,departed,fewer,less,missing,burned down,leveled,filled in,"
    "become smaller,became smaller,becomes smaller,become narrower,became narrower,taken down,eliminated,diminished",
    "dry": "dried,dries,dry,dry up,dried up,dried out,drained,drain,drought,parched",
    "flood": "flooded,flood,flooding,inundated,submerged,under water,underwater,filled with water",
    "fire": "fire,wildfire,burned,burnt,burning,scorched",
    "earthquake": "earthquake,quake",
    "tsunami": "tsunami",
    "wind": "wind,hurricane,tornado,storm,cyclone,typhoon",
    "volcano": "volcano,volcanic,eruption,lava",
    "landslide": "landslide,mudslide",
    "damage": "damage,damaged,demaged,damaging,ruined,affected,effected,affect,effect",
}
EXCEPTION_TERMS = (
    "except,except for,excepting,apart from,aside from,other than,besides,save for,excluding,with the exception of"
)
"""Terms before an exception."""
AS_BEFORE_TERMS = (
    "as it was,as they were,as it did,as they did,like it was,like they were,like it did,like they did,as it used to,"
    "as they used to,the way it was,the way they were,what it was,what they were,as always"
)
"""Terms that compare a scene with its former state."""
_NO_FACT = (
    f"{EXCEPTION_TERMS},{AS_BEFORE_TERMS},"
    "from above,high resolution,low resolution,right next,right beside,broad leaved,more than,less than,"
    "more or less,no more than,at least,wide range,wide variety,not only,not far,not far from,on top of,built side,"
    "fire station,new york,at one,one by one,one side,at first,for the first time"
)
"""Terms whose words would otherwise state a fact."""


def _table() -> dict[str, tuple[Fact, ...]]:
    table: dict[str, tuple[Fact, ...]] = {word: (("number", str(n)),) for n, word in enumerate(_NUMBERS, 2)}
    kinds = (
        ("number", _MORE_NUMBERS),
        ("density", _DENSITY),
        ("colour", _COLOURS),
        ("material", _MATERIALS),
        ("change", _CHANGES),
    )
    for kind, spellings in kinds:
        table |= {term: ((kind, value),) for value, terms in spellings.items() for term in terms.split(",")}
    for size, terms in _SIZES.items():
        table |= dict.fromkeys(terms.split(","), (size,))
    for values, terms in _DIRECTIONS.items():
        table |= dict.fromkeys(terms.split(","), tuple(("direction", value) for value in values.split()))
    for name, terms in OBJECTS.items():
        for term in terms.split(","):
            table[term] = table[term.replace(" ", "")] = (("object", name),)
    table |= {
        "circular farmland": (("shape", "round"), ("object", "farmland")),
        "rectangular farmland": (("shape", "rectangular"), ("object", "farmland")),
        **dict.fromkeys(("shorter", "shortest"), (("length", "short"), ("height", "low"))),
        "large vehicle": (("size", "large"), ("object", "vehicle")),
        "small vehicle": (("size", "small"), ("object", "vehicle")),
        "small car": (("size", "small"), ("object", "vehicle")),
        "medium residential": (("density", "medium"), ("object", "residential")),
        "medium residential area": (("density", "medium"), ("object", "residential")),
        "heavy traffic": (("density", "many"), ("object", "vehicle")),
        "thin vegetation": (("density", "sparse"), ("object", "vegetation")),
        "thin forest": (("density", "sparse"), ("object", "tree")),
        **dict.fromkeys(_NEGATION.split(","), NEGATION),
        **dict.fromkeys(_NO_FACT.split(","), ()),
    }
    return table


def _plurals(term: str) -> tuple[str, ...]:
    return () if term == "a" else (term + "s", term + "es", *((term[:-1] + "ies",) if term.endswith("y") else ()))


_SINGULAR = _table()
FACTS = {plural: facts for term, facts in _SINGULAR.items() for plural in _plurals(term)} | _SINGULAR
"""Facts that a word or a term states, in the singular and in the plural."""

_MULTIWORD = sorted((term.split() for term in FACTS if " " in term), key=len)
TERM_STARTS = {(words[0], words[1]): len(words) for words in _MULTIWORD}
"""The number of words of the longest term that begins with two words."""


def states_fact(word: str) -> bool:
    """Whether a lower-case word states a fact."""
    return bool(FACTS.get(word))
