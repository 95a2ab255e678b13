"""Classes that an answer names: lists in any notation, sentences, negated names and hedges."""

from __future__ import annotations

import functools

from geovlm_ray.core.schema import Example, target_texts
from geovlm_ray.tasks.class_names import HEADS, NEGATORS, ClassNames, Synonyms, class_names, known_names
from geovlm_ray.tasks.conclusions import conclusion
from geovlm_ray.tasks.words import CLOSE, COLON, COMMA, DELIMITERS, LINE, SENTENCE, tokens

MAX_CACHED_CHARS = 1024
"""Longer answers are not cached, so that adversarial answers cannot fill the cache."""
UNKNOWN = "?"
"""First character of the key of a name that is not in the vocabulary."""

_VERBS = frozenset(
    "is are was were be been being show depict contain have has had can could see seen visible appear seem feature "
    "include belong represent display illustrate capture reveal indicate suggest consist comprise look identify "
    "classify classified categorized categorised identified fall correspond consider considered describe described "
    "suffered sustained experienced would should will may might must did do does remain remains".split()
)
_EXPLANATIONS = frozenset("because since due given evidenced indicated suggesting although though whereas while".split())
_EXPLAINING_AS = frozenset("there the it they we indicated evidenced seen shown several many".split())
_MARKERS = frozenset(
    "answer class category label classification classified categorized categorised prediction conclusion therefore "
    "thus hence identified final described predicted classify categorize fall belong assessment".split()
)
_CONTEXT = frozenset(
    "through across into over between among behind within crossing with near next beside surrounded adjacent along by on at around featuring containing where which alongside "
    "having including for from".split()
)
_HEDGES = frozenset("or alternatively maybe perhaps possibly also could might may either".split())
_CONTRASTS = frozenset("but however".split())
_CONJUNCTIONS = _CONTRASTS | {"and", "or", "nor", "+"}
_UNSEEN = frozenset("visible present seen found shown there detected observed evident".split())
_ABSENT = frozenset("absent missing".split())
_NEGATED_LISTS = frozenset(("or", "nor"))
_LIST_WORDS = 12
"""Tokens after a comma in which a negated list may end."""
_FILLER = HEADS | _MARKERS | _EXPLANATIONS | _HEDGES | frozenset(
    "a an the this that these those it its there here in of to as image picture photo scene satellite aerial remote "
    "sensing following based on given most likely best best clearly obviously sure option choice mainly primarily "
    "dominant main land cover use level name type kind i we you he they think believe confidence score yes probability "
    "high resolution view overhead shown some several many few multiple various any all both well correct detected "
    "present patch tile list above below provided my so then very which two per output result response json null none "
    "tag text caption ground sentinel".split()
)  # fmt: skip
_UNKNOWN_WORDS = 4
"""Words of which a name that is not in the vocabulary consists at most."""


def named_classes(answer: str, example: Example, synonyms: Synonyms = Synonyms()) -> list[str]:
    """Keys of the classes that an answer names, in order and with repetitions.

    The vocabulary is the example's labels and the target's names. A name outside it is a class of its own, whose key
    starts with `UNKNOWN`. Negated names do not count; alternatives ("harbor or beach") all do. In tasks with one class,
    what follows its statement ("... because ships are visible") does not count.
    """
    target = target_texts(example.target)
    names = (*example.labels, *target) if example.labels else target
    single = len(target) == 1 and example.task != "multilabel_classification"
    read = _named_classes if len(answer) <= MAX_CACHED_CHARS else _named_classes.__wrapped__
    return list(read(answer, names, bool(example.labels), synonyms, single))


def true_classes(example: Example, synonyms: Synonyms = Synonyms()) -> set[str]:
    """Keys that `named_classes` returns for the names of the target."""
    target = target_texts(example.target)
    vocabulary = class_names((*example.labels, *target) if example.labels else target, synonyms)
    return {vocabulary.key_for(name) for name in target}


@functools.lru_cache(maxsize=1 << 13)
def _named_classes(
    answer: str, names: tuple[str, ...], closed: bool, synonyms: Synonyms, single: bool
) -> tuple[str, ...]:
    vocabulary = class_names(names, synonyms)
    sentences = [Sentence(words, vocabulary, closed, single) for words in _sentences(conclusion(answer))]
    if single:
        sentences = _statement(sentences)
    keys = [key for sentence in sentences for key in sentence.keys]
    return tuple(keys + [key for s in sentences if s.bare or not closed for key in s.unknown])


def _sentences(text: str) -> list[list[str]]:
    """The tokens of each sentence or line; the number of a list item ends no sentence."""
    sentences: list[list[str]] = [[]]
    for token in tokens(text):
        if token not in (SENTENCE, LINE):
            sentences[-1].append(token)
        elif sentences[-1] and not (token == SENTENCE and sentences[-1][-1].isdigit()):
            sentences.append([])
    return sentences


def _statement(sentences: list[Sentence]) -> list[Sentence]:
    """The sentences that state the one class of an answer, without those that describe the image.

    The last marked sentence ("the class is ..."), else the first that names a class and all that are lists or hedges.
    """
    stated = [sentence for sentence in sentences if sentence.keys]
    marked = [sentence for sentence in stated if sentence.marked]
    if marked:
        return marked[-1:]
    return [s for s in sentences if s is (stated or [None])[0] or s.bare or s.hedged]


class Sentence:
    """The classes that one sentence names.

    ``keys`` are those of the vocabulary, ``unknown`` those of other names. ``bare``: it is a list of names, without a
    verb. ``hedged``: it offers alternatives. ``marked``: it is introduced as the result ("the class is ...").
    """

    def __init__(self, words: list[str], vocabulary: ClassNames, closed: bool, single: bool) -> None:
        self.keys: list[str] = []
        self.unknown: list[str] = []
        self.bare, self.hedged, self.marked = True, False, False
        self._words = words
        self._negated, self._named, self._explained = False, False, False
        self._clause = 0
        self._piece: list[str] = []
        others = None if closed else known_names()
        i, end = 0, len(words)
        while i < end:
            word = words[i]
            match = vocabulary.match(words, i) if word in vocabulary.prefixes else None
            if match is None and others is not None and word in others.prefixes:
                match = others.match(words, i)
            if match:
                i, self._named = match[1], True
                if not self._negated:
                    self.keys.append(match[0])
                continue
            if self._ends_at(i, word, single):
                break
            i += 1
        self._end_piece()

    def _ends_at(self, i: int, word: str, single: bool) -> bool:
        """Read a word that names no class; whether the statement ends before it."""
        if word in DELIMITERS or word in _CONJUNCTIONS:
            if word in (CLOSE, COLON) and not self._named:
                self._piece.clear()
            if word == COLON and self.keys:
                self._explained = True
                if single:
                    return True
            self._end_piece()
            self._end_clause(i, word)
        elif word in NEGATORS or word in _ABSENT:
            self._negate(i, word)
        elif word in _VERBS:
            self.bare = False
            self._piece.clear()
        elif word in _EXPLANATIONS or (word == "as" and self._next(i) in _EXPLAINING_AS):
            return bool(self.keys)
        elif single and self.keys and word in _CONTEXT:
            return True
        elif word in _MARKERS:
            self.marked = self.marked or not self.keys
        elif word not in _FILLER and word[0].isalpha():
            self._piece.append(word)
        self.hedged = self.hedged or word in _HEDGES
        return False

    def _next(self, i: int) -> str:
        return self._words[i + 1] if i + 1 < len(self._words) else COMMA

    def _negate(self, i: int, word: str) -> None:
        """Negate the names that follow; after names ("ships are not visible", "airport: no"), those before."""
        following = self._next(i)
        if following == "only":
            return
        alone = following == COMMA and i > 0 and self._words[i - 1] in DELIMITERS
        if word in _ABSENT or following in _UNSEEN or (alone and word in ("no", "not")):
            del self.keys[(self._clause if not alone else len(self.keys) - 1) :]
        else:
            self._negated = True

    def _end_clause(self, i: int, word: str) -> None:
        """End a negation at a delimiter, except inside a negated list ("no ships, planes or cars")."""
        if word in ("and", "or", "nor", "+"):
            return
        if word in (COMMA, COLON) and self._negated and not _NEGATED_LISTS.isdisjoint(self._words[i + 1 : i + _LIST_WORDS]):
            return
        self._negated = False
        self._clause = len(self.keys)

    def _end_piece(self) -> None:
        """Count a piece of the sentence that named no class of the vocabulary as one unknown class, or several."""
        piece = self._piece
        if piece and not self._named and not self._negated and not self._explained:
            self.unknown += [
                UNKNOWN + "".join(piece[i : i + _UNKNOWN_WORDS]) for i in range(0, len(piece), _UNKNOWN_WORDS)
            ]
        self._piece, self._named = [], False
