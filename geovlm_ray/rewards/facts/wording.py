"""Content words of a caption, one spelling per meaning, so that captions that say the same have the same words."""

from __future__ import annotations

from geovlm_ray.rewards.facts.vocabulary import Fact
from geovlm_ray.rewards.text_metrics.lexical import stem

_FILLER_WORDS = """
    a an the this that these those there here it its is are was were be been being has have had do does did and
    or but so then of in on at to from for with by as into onto than which who where whose when while also just
    only very quite rather some any all both each other another such one ones within about can could may might
    will would should seem seems seemed i we you they them their our me see seen visible shown show shows
    showing depict depicts depicted depicting feature features featuring contain contains containing include
    includes including display displays present presents illustrate illustrates provide consist consists image
    images picture photo photograph scene view views satellite aerial remote sensing overhead drone bird eye
    resolution region object objects located situated positioned lies lie lying stand stands standing stood
    exist exists found side sides part parts corner area areas zone piece pieces kind type appear appears
    colored coloured colour color roofed shaped sized overall clearly please answer caption description what
    first second sandy before after now between time date dates more most much up out off down itself parked
    parking moored docked anchored berthed stopped stationed docking mooring stopping
"""
_FILLERS = frozenset(_FILLER_WORDS.split())
_SYNONYMS = {
    "near": "near,next,beside,close,nearby,adjacent,alongside,along,neighboring,closely,besides,by",
    "move": "driving,travelling,traveling,moving,sailing,sail,sails,drive,runs,running,run,passes,passing,flows,flow",
    "around": "around,surround,surrounds,surrounded,surrounding,encircled,encircle,encircling,enclosed,ringed",
    "cross": "cross,crosses,crossing,crossed,span,spans,spanning,across,over,intersect",
    "neat": "neatly,orderly,neat,tidy,regularly,organized,arranged,rows,row,lined",
    "round": "circle,circular,round,oval,circularly",
    "curved": "curved,winding,curving,meandering,winds,arc,bend,curve",
    "straight": "straight,linear",
    "cover": "covered,cover,covers,covering",
    "distribute": "scattered,distributed,spread,dotted,scatter",
    "connect": "connected,connects,connect,joined,linked,link,links,connecting",
    "pretty": "beautiful,pretty,scenic",
    "open": "open,vast",
}
_CANONICAL = {word: meaning for meaning, words in _SYNONYMS.items() for word in words.split(",")}
_QUANTITY = {"dozens": "many", "hundreds": "many", "several": "many", "dense": "many", "sparse": "few", "some": ""}
_EVENT = {"gain": "built", "loss": "removed"}


def is_filler(word: str) -> bool:
    """Whether a word says nothing about the content, such as an article or a lead-in ("the image shows")."""
    return word in _FILLERS or not word[0].isalnum()


def content_words(term: str, facts: tuple[Fact, ...]) -> tuple[str, ...]:
    """The content words of a term: the names of its facts, else its stem, else nothing.

    Numerals are digits; the number one is left out.
    """
    if facts:
        return tuple(dict.fromkeys(name for kind, value in facts if (name := _name(kind, value))))
    return () if is_filler(term) else (_CANONICAL.get(term) or stem(term),)


def _name(kind: str, value: str) -> str:
    if kind == "change":
        return _EVENT.get(value, value)
    if kind == "density":
        return _QUANTITY.get(value, value)
    return "" if kind == "rank" or (kind, value) == ("number", "1") else value.replace(" ", "")
