"""Phrases of answers: their content words, and the phrase that a sentence states."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from geovlm_ray.tasks.answers.class_names import NEGATORS
from geovlm_ray.tasks.answers.words import COMMA, DELIMITERS, LINE, OPEN, SENTENCE, WordForms, word_set

FILLER = word_set(
    "a an the this that these those there here it its they is are was were be been being appear seem show "
    "depict contain have has image picture photo photograph scene satellite aerial view seen visible see can in of on "
    "at as by from clearly mainly mostly approximately about around roughly exactly total please i we think believe "
    "likely probably answer s sure certainly based given provided appears seems just only overall"
)
"""Words that state no fact of a short answer."""
SKIPPED = FILLER | DELIMITERS
VERBS = word_set(
    "is are was were be been being show depict contain have has had appear seem look feature include represent display "
    "illustrate capture reveal indicate suggest identify resemble likely called named known used covered dominated "
    "composed painted colored"
)
_PARTICIPLES = word_set("surrounded bordered occupied filled made enclosed lined")
_AFTER_VERBS = word_set("for by of with as like to from in")
CUTS = word_set(
    "in on at near with because since as which that who where located situated surrounded next along beside adjacent "
    "due based while although though when given featuring used by for from within around parked docked "
    "moored standing"
)
"""Words that begin an addition to the phrase that a sentence states."""
_ADDITIONS = CUTS | VERBS | NEGATORS | word_set("there the it this these they i so suggesting indicating rather")
MODIFIERS = word_set("large small long wide several many few some multiple various single main major visible different")
"""Adjectives, as stems, that an answer may add to the noun of the truth."""
_CANONICAL = {
    spelling: name
    for name, spellings in {
        "top": "top upper topmost north northern uppermost",
        "bottom": "bottom lower bottommost south southern lowermost",
        "left": "left west western leftmost", "right": "right east eastern rightmost", "center": "center middle",
        "large": "large big huge", "small": "small little tiny", "more": "more greater higher", "less": "less fewer",
        "dense": "dense densely", "sparse": "sparse sparsely", "picture": "photograph photo",
        "agriculture": "agricultural",
        "industry": "industrial", "residence": "residential", "commerce": "commercial",
        "car": "car automobile", "circle": "circular round", "rectangle": "rectangular", "triangle": "triangular",
        "none": "nothing none",
        "forest": "forested", "mountain": "mountainous", "sand": "sandy", "grass": "grassy",
        "not": " ".join(NEGATORS - {"rather", "instead"}),
        "build": "built build constructed", "adjacent": "next beside",
        "below": "below under beneath underneath", "above": "above over", "inside": "inside within",
        "outside": "outside",
    }.items()
    for spelling in (name, *spellings.split())
}  # fmt: skip
_NOT_INFLECTED = word_set(
    "building parking housing string spring ceiling crossing wing king bed red shed seed feed reed weed"
)


GENERAL_NOUNS = word_set(
    "area region zone site land field court plant station lot facility building place center road power type class "
    "object structure color object park ground surface side to than and"
)
"""Head nouns that very different names share ("tennis court", "basketball court")."""


_LIST_DELIMITERS = word_set("and + plus but")
_LIST_PHRASES = frozenset((("as", "well"), ("along", "with"), ("together", "with"), ("addition", "to")))
_LIST_FILLER = word_set("both also along together addition")


def phrase_words(words: Sequence[str]) -> list[str]:
    """Stems of the content words of tokens, in order."""
    return [STEMS[word] for word in words if word not in SKIPPED]


def sentences(words: Sequence[str]) -> list[list[str]]:
    """Tokens of each sentence or line with at least one word."""
    found: list[list[str]] = [[]]
    for word in words:
        if word not in (SENTENCE, LINE):
            found[-1].append(word)
        elif found[-1]:
            found.append([])
    return [sentence for sentence in found if any(word != COMMA for word in sentence)]


def affirmed(words: Sequence[str]) -> list[str]:
    """Tokens outside negations; a negation ends at a delimiter or contrast; "not only" is none."""
    if NEGATORS.isdisjoint(words):
        return list(words)
    found, negated = [], False
    for i, word in enumerate(words):
        if word == "not" and words[i + 1 : i + 2] == ["only"]:
            continue
        ends = negated and word == "but"
        negated = (negated or word in NEGATORS) and word not in DELIMITERS and not ends
        if not negated and not ends:
            found.append(word)
    return found


def items(words: Sequence[str]) -> list[list[str]]:
    """Content words of the items of a list, which commas, line breaks, "and", "as well as" and the like delimit."""
    found: list[list[str]] = [[]]
    before = ""
    for word in words:
        if word in DELIMITERS or word in _LIST_DELIMITERS or (before, word) in _LIST_PHRASES:
            found.append([])
        elif word not in FILLER and word not in _LIST_FILLER:
            found[-1].append(word)
        before = word
    named = [item for item in found if item and not (len(item) == 1 and item[0].isdecimal())]
    return named or [item for item in found if item]


def statements(words: Sequence[str]) -> Iterator[list[str]]:
    """Candidates for the phrase that the first sentence of an answer states, most complete first.

    The sentence, what follows its verb, and both without additions such as "... in the image" or "..., because ...".
    Empty if further sentences state alternatives.
    """
    parts = sentences(words)
    if not parts or any(not _describes(part) for part in parts[1:]):
        return
    first = parts[0]
    for begin in _beginnings(first):
        yield begin
        for i in range(1, len(begin)):
            if begin[i] in CUTS or begin[i] == OPEN or (begin[i] in (COMMA, "and") and _adds(begin[i + 1 : i + 3])):
                yield begin[:i]
                break


def _beginnings(sentence: list[str]) -> Iterator[list[str]]:
    yield sentence
    verbs = [
        i for i, word in enumerate(sentence) if word in VERBS or (word in _PARTICIPLES and sentence[i - 1] in VERBS)
    ]
    for i in dict.fromkeys((*verbs[:1], *verbs[-1:])):
        yield sentence[i + 2 if sentence[i + 1 : i + 2] and sentence[i + 1] in _AFTER_VERBS else i + 1 :]
    if COMMA in sentence and sentence[-1] != COMMA:
        lead = sentence.index(COMMA)
        if all(word in FILLER for word in sentence[:lead]) or sentence[0] in ("category", "class", "type"):
            yield sentence[lead + 1 :]


def _adds(following: Sequence[str]) -> bool:
    """Whether the two words after a comma begin an addition: a clause, or a participle ("surrounded by trees")."""
    participle = len(following) == 2 and following[0].endswith(("ed", "ing")) and following[1] in _ADDITIONS
    return participle or not _ADDITIONS.isdisjoint(following[:1])


def _describes(sentence: Sequence[str]) -> bool:
    """Whether a sentence explains an answer instead of stating another one."""
    return not VERBS.isdisjoint(sentence) or sentence[0] in CUTS or not NEGATORS.isdisjoint(sentence)


def _stem(word: str) -> str:
    if word in _CANONICAL:
        return _CANONICAL[word]
    if len(word) < 5 or word in _NOT_INFLECTED or word[-1].isdecimal():
        return word
    for ending in ("ing", "ed"):
        base = word.removesuffix(ending)
        if base != word and len(base) >= 3:
            base = base[:-1] if base[-1] == base[-2] and base[-1] not in "ls" else base
            return _CANONICAL.get(base, base.removesuffix("e"))
    return _CANONICAL.get(word, word.removesuffix("e"))


STEMS = WordForms(_stem)
"""One form of the inflections and common synonyms of each word in its normal form."""
OPPOSITES = {
    STEMS[a]: STEMS[b]
    for pair in (
        *("left right", "top bottom", "increase decrease", "before after", "urban rural", "more less", "large small"),
        *("high low", "open close", "wet dry", "horizontal vertical", "dense sparse", "light dark", "day night"),
        *("old new", "build demolish", "add remove", "appear disappear", "above below", "inside outside", "flood dry"),
        *("larger smaller", "more fewer", "front behind", "clockwise counterclockwise", "expand shrink", "full empty"),
        *("vegetated barren", "paved unpaved", "damaged intact", "calm rough", "cloudy clear", "moving stationary"),
    )
    for a, b in (pair.split(), reversed(pair.split()))
}
"""Stems of opposite meaning."""
