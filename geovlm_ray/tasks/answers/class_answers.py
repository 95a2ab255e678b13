"""Classes that an answer names: lists in any notation, sentences, negated names and hedges."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field

from geovlm_ray.core.schema import Example, target_texts
from geovlm_ray.tasks.answers.before_after import state_after
from geovlm_ray.tasks.answers.class_names import (
    HEADS,
    NEGATORS,
    SHIPPED,
    ClassNames,
    Synonyms,
    class_names,
    known_names,
)
from geovlm_ray.tasks.answers.conclusions import conclusion
from geovlm_ray.tasks.answers.hedges import without_unknown
from geovlm_ray.tasks.answers.words import CLOSE, COLON, COMMA, DELIMITERS, LINE, SENTENCE, tokens, word_set

MAX_CACHED_CHARS = 1024
"""Longer answers are not cached, so that adversarial answers cannot fill the cache."""
MAX_CACHED_ANSWERS = 256
"""Answers that are kept for each target."""
UNKNOWN = "?"
"""First character of the key of a name that is not in the vocabulary."""

_VERBS = word_set(
    "is are was were be been being show depict contain have has had can could see seen visible appear seem feature "
    "include belong represent display illustrate capture reveal indicate suggest consist comprise look identify "
    "classify classified categorized categorised identified fall correspond consider considered describe described "
    "suffered sustained experienced would should will may might must did do does remain remains"
)
_EXPLANATIONS = word_set("because since due given evidenced indicated suggesting although though whereas while")
_EXPLAINING_AS = word_set("there the it they we you one can indicated evidenced seen shown several many")
_MARKERS = word_set(
    "answer class category label classification classified categorized categorised prediction conclusion therefore "
    "thus hence identified final described predicted classify categorize fall belong assessment"
)
_CONTEXT = word_set(
    "in through across into over between among behind within crossing with near next beside surrounded adjacent along "
    "by on at around featuring containing where which alongside having including for from"
)
_HEDGES = word_set("or alternatively maybe perhaps possibly also could might may either")
_CONTRASTS = word_set("but however")
_CONJUNCTIONS = _CONTRASTS | {"and", "or", "nor", "+"}
_UNSEEN = word_set("visible present seen found shown there detected observed evident identified applicable")
_ABSENT = word_set("absent missing")
_FALSE = word_set("false 0")
"""Words for an absence after a name and a colon."""
_COPULAS = word_set("is are was were be been")
_REMARKS = frozenset((COLON, "="))
_LEAD = DELIMITERS | _REMARKS | word_set("i we there it do is are")
"""Words between a name and the negation in a remark on it: "airport: I do not see any airport"."""
_MAX_LEAD, _REMARK_WORDS = 8, 4
_NEGATIONS = NEGATORS | {"almost", "nearly"}
_NEGATED_LISTS = frozenset(("or", "nor"))
_EXAMPLES = word_set("a an the many several some there numerous multiple lots with")
"""Words that begin the description of a class after a dash or comma."""
_HEADING_WORDS = 3
_LIST_WORDS = 12
"""Tokens after a comma in which a negated list may end."""
_FILLER = HEADS | _MARKERS | _EXPLANATIONS | _HEDGES | word_set(
    "a an the this that these those it its there here in of to as image picture photo scene satellite aerial remote "
    "sensing following based on given most likely best best clearly obviously sure option choice mainly primarily "
    "dominant main land cover use level name type kind i we you he they think believe confidence score yes probability "
    "high resolution view overhead shown as some several many few multiple various any all both well correct detected "
    "present patch tile list above below provided my so then very which two per output result response json null none "
    "tag text caption ground sentinel true"
)  # fmt: skip
_ROLES = _VERBS | _EXPLANATIONS | _CONTEXT | _CONJUNCTIONS | _NEGATIONS | _ABSENT | _FALSE | DELIMITERS
_SPECIAL = _ROLES | _FILLER | frozenset("=%°<>~±§+")
_FILLER_ALONE = _FILLER - _ROLES - _MARKERS - _HEDGES - {"as"}
_UNKNOWN_WORDS = 4
"""Words of which a name that is not in the vocabulary consists at most."""


@dataclass(frozen=True)
class ClassReader:
    """Reads answers to the questions of one vocabulary and target.

    The vocabulary is the labels of the record and the target's names. A name outside it is a class of its own, whose
    key starts with `UNKNOWN`. ``closed``: the record has labels. ``single``: its task has one class an answer, so that
    what follows its statement ("... because ships are visible") does not count.
    """

    vocabulary: ClassNames
    truth: frozenset[str]
    labels: frozenset[str]
    closed: bool
    single: bool
    _cache: dict[str, tuple[str, ...]] = field(default_factory=dict, repr=False)

    def keys(self, answer: str) -> tuple[str, ...]:
        """Keys of the classes that an answer names, in order and with repetitions.

        Negated names do not count; alternatives ("harbor or beach") all do.
        """
        found = self._cache.get(answer)
        if found is None:
            found = self._read(answer)
            if len(answer) <= MAX_CACHED_CHARS:
                if len(self._cache) >= MAX_CACHED_ANSWERS:
                    self._cache.clear()
                self._cache[answer] = found
        return found

    def mentioned(self, text: str) -> set[str]:
        """Keys of the vocabulary's names anywhere in a text, negated ones included."""
        found = tokens(text)
        matches = (self.vocabulary.match(found, i) for i, word in enumerate(found) if word in self.vocabulary.prefixes)
        return {match[0] for match in matches if match}

    def _read(self, answer: str) -> tuple[str, ...]:
        words = tokens(conclusion(answer))
        after = state_after(words) if self.single else None
        return (self._read_words(after) if after else ()) or self._read_words(words)

    def _read_words(self, answer: list[str]) -> tuple[str, ...]:
        read = (Sentence(words, self.vocabulary, self.closed, self.single) for words in _sentences(answer))
        sentences = _statement(list(read)) if self.single else list(read)
        keys = [key for sentence in sentences for key in sentence.keys]
        return tuple(keys + [key for s in sentences if s.bare or not self.closed for key in s.unknown])


def class_reader(example: Example, synonyms: Synonyms = SHIPPED) -> ClassReader:
    """The reader of answers to an example with class names as its target; readers are kept."""
    return _class_reader(target_texts(example.target), example.labels, example.task, synonyms)


@functools.lru_cache(maxsize=4096)
def _class_reader(target: tuple[str, ...], labels: tuple[str, ...], task: str, synonyms: Synonyms) -> ClassReader:
    vocabulary = class_names((*labels, *target) if labels else target, synonyms)
    truth, listed = (frozenset(map(vocabulary.key_for, names)) for names in (target, labels))
    single = len(target) == 1 and task != "multilabel_classification"
    return ClassReader(vocabulary, truth, listed, bool(labels), single)


def _sentences(found: list[str]) -> list[list[str]]:
    """The tokens of each sentence or line, without open questions; the mark of a list item ("1.") ends no sentence."""
    if SENTENCE not in found and LINE not in found:
        return [without_unknown(found)]
    sentences: list[list[str]] = [[]]
    for token in found:
        if token not in (SENTENCE, LINE):
            sentences[-1].append(token)
        elif token == SENTENCE and len(sentences[-1]) == 1 and len(sentences[-1][0]) == 1:
            sentences[-1].clear()
        elif sentences[-1] and not (token == SENTENCE and sentences[-1][-1].isdecimal()):
            sentences.append([])
    return list(map(without_unknown, sentences))


def _statement(sentences: list[Sentence]) -> list[Sentence]:
    """The sentences that state the one class of an answer, without those that describe the image.

    The last marked sentence ("the class is ..."), else the first that names a class and all that are lists or hedges.
    """
    stated = [sentence for sentence in sentences if sentence.keys]
    marked = [sentence for sentence in stated if sentence.marked]
    if marked:
        return marked[-1:]
    return [s for s in sentences if s in stated[:1] or s.bare or s.hedged]


class Sentence:
    """The classes that one sentence names.

    ``keys`` are those of the vocabulary, ``unknown`` those of other names. ``bare``: it is a list of names, without a
    verb. ``hedged``: it offers alternatives. ``marked``: it is introduced as the result ("the class is ...").
    """

    def __init__(self, words: list[str], vocabulary: ClassNames, closed: bool, single: bool) -> None:
        self.keys: list[str] = []
        self.unknown: list[str] = []
        self.bare, self.hedged, self.marked = True, False, False
        self._words, self._vocabulary = words, vocabulary
        self._negated, self._named, self._explained = False, False, False
        self._denied = False
        self._list = 0
        self._clause = self._subjects = 0
        self._predicated = False
        self._name_end = 0
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
                self._name_end = 0 if self._negated else i
                if not self._negated:
                    if len(self.unknown) > self._list:
                        self._complete(words[i - 1])
                    self.keys.append(match[0])
                self._list = len(self.unknown)
                continue
            i += 1
            if word not in _SPECIAL:
                if word[0].isalpha():
                    self._piece.append(word)
            elif word not in _FILLER_ALONE and self._ends_at(i - 1, word, single):
                break
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
            self._explained = self._explained or (single and word == COMMA and self._describes(i))
            self._end_clause(i, word)
        elif word in _NEGATIONS or word in _ABSENT or word in _FALSE:
            self._negate(i, word)
        elif word in _VERBS:
            self.bare, self._predicated = False, True
            self._piece.clear()
            self._list = len(self.unknown)
        elif word in _EXPLANATIONS or (word == "as" and self._next(i) in _EXPLAINING_AS):
            return bool(self.keys)
        elif single and self.keys and word in _CONTEXT:
            return True
        elif word in _MARKERS:
            self.marked = self.marked or not self.keys
        self.hedged = self.hedged or word in _HEDGES
        return False

    def _describes(self, i: int) -> bool:
        """Whether a description of the named class follows a delimiter ("beach - a sandy shore")."""
        return bool(self.keys) and self._next(i) in _EXAMPLES

    def _next(self, i: int) -> str:
        return self._words[i + 1] if i + 1 < len(self._words) else COMMA

    def _negate(self, i: int, word: str) -> None:
        """Negate the names that follow; after names ("ships are not visible", "airport: no"), those before.

        A heading ("Absent:") negates the rest of the sentence.
        """
        following = self._next(i)
        if self._denies_last(i, word):
            del self.keys[-1:]
            self._negated = following not in DELIMITERS
            return
        if following == "only" or word in _FALSE:
            return
        unseen = following in _UNSEEN or (following in _COPULAS and self._next(i + 1) in _UNSEEN)
        heads = not self.keys and (word in _ABSENT or unseen)
        if heads and COLON in self._words[i + 1 : i + 1 + _HEADING_WORDS]:
            self._denied = self._negated = True
            return
        before = self._words[i - 1] if i else COMMA
        if word in _ABSENT or unseen or (before in _COPULAS and following in DELIMITERS):
            is_predicate = before in _COPULAS or following in _COPULAS
            del self.keys[self._subjects if is_predicate else self._clause :]
        else:
            self._negated = True

    def _denies_last(self, i: int, word: str) -> bool:
        """Whether a negation is all that follows a name: "airport: no", "airport (not visible)"."""
        if not 0 < self._name_end < i <= self._name_end + _MAX_LEAD:
            return False
        between, following = self._words[self._name_end : i], self._next(i)
        is_remark = not _REMARKS.isdisjoint(between)
        if not (_LEAD if is_remark else DELIMITERS).issuperset(between):
            return False
        if following in DELIMITERS:
            return is_remark or word not in _FALSE
        if word in _ABSENT or following in _UNSEEN:
            return True
        near = range(i + 1, min(i + 1 + _REMARK_WORDS, len(self._words))) if is_remark else ()
        return any((match := self._vocabulary.match(self._words, k)) and match[0] == self.keys[-1] for k in near)

    def _end_clause(self, i: int, word: str) -> None:
        """End a negation at a delimiter, except inside a negated list ("no ships, planes or cars")."""
        if self._predicated:
            self._subjects, self._predicated = len(self.keys), False
        if word in ("and", "or", "nor", "+"):
            self._clause = max(self._clause, self._subjects)
            return
        if (
            word in (COMMA, COLON)
            and self._negated
            and not _NEGATED_LISTS.isdisjoint(self._words[i + 1 : i + _LIST_WORDS])
        ):
            return
        self._negated = self._denied
        self._clause = len(self.keys)

    def _complete(self, head: str) -> None:
        """Read the items before a name with its last word: "coniferous and mixed forest" is two forests."""
        items = self.unknown[self._list :]
        keys = [self._vocabulary.key_of_joined(item.removeprefix(UNKNOWN) + head) for item in items]
        self.unknown[self._list :] = [item for item, key in zip(items, keys, strict=True) if key is None]
        self.keys += [key for key in keys if key is not None]

    def _end_piece(self) -> None:
        """Count a piece of the sentence that named no class of the vocabulary as one unknown class, or several."""
        piece = self._piece
        if piece and not self._named and not self._negated and not self._explained:
            self.unknown += [
                UNKNOWN + "".join(piece[i : i + _UNKNOWN_WORDS]) for i in range(0, len(piece), _UNKNOWN_WORDS)
            ]
        self._piece, self._named = [], False
