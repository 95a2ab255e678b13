"""Equivalence of short answers to questions: the truth and the question decide what is compared.

A truth is an option of a multiple-choice question, yes or no, a quantity, a position, a comparison, a list, or a
phrase.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

from geovlm_ray.tasks.answers import choices
from geovlm_ray.tasks.answers.class_names import HEADS, NEGATORS, SHIPPED, ClassNames, Synonyms, class_names
from geovlm_ray.tasks.answers.conclusions import conclusion
from geovlm_ray.tasks.answers.hedges import without_unknown
from geovlm_ray.tasks.answers.measures import whole_quantity
from geovlm_ray.tasks.answers.phrases import (
    CUTS,
    FILLER,
    GENERAL_NOUNS,
    MODIFIERS,
    OPPOSITES,
    SKIPPED,
    STEMS,
    VERBS,
    affirmed,
    items,
    phrase_words,
    sentences,
    statements,
)
from geovlm_ray.tasks.answers.polarity import polarity, truth_polarity
from geovlm_ray.tasks.answers.positions import (
    asked_direction,
    comparison,
    directions,
    whole_comparison,
)
from geovlm_ray.tasks.answers.quantities import counted_nouns, names_of, stated_quantity
from geovlm_ray.tasks.answers.relations import Place
from geovlm_ray.tasks.answers.repetitions import first_of_two, repeats, said_once
from geovlm_ray.tasks.answers.words import COMMA, DELIMITERS, tokens, word_set

MAX_NAME_CHARS = 128
"""Longer truths are no class names."""
_ORDERED = word_set("than from to left right top bottom above below behind over under between before after")


class Agreement(NamedTuple):
    """Agreement of an answer with the truth in [0, 1]; ``typed`` if meaning decided it, not the overlap of words."""

    value: float
    typed: bool


EQUAL, DIFFERENT = Agreement(1.0, True), Agreement(0.0, True)


def agreement(answer: str, truth: str, question: str = "", synonyms: Synonyms = SHIPPED) -> Agreement:
    """Agreement of an answer with the truth: 1 if they mean the same, else as far as their words overlap.

    Words alone are compared if the answer consists of repetitions.

    Answers of another meaning of the same type, and hedges, score 0: "no" for "yes", 3 for 2, "left" for "right".
    """
    return _truth(truth, question, synonyms).agreement(answer)


def answer_keys(answer: str, truth: str, question: str = "", synonyms: Synonyms = SHIPPED) -> tuple[str, str]:
    """The answer and the truth as classes, equal if they are equivalent."""
    own = _truth(truth, question, synonyms)
    if own.agreement(answer).value == 1:
        return own.key, own.key
    words = tokens(conclusion(answer))
    said = polarity(words, own.question) if own.polar is not None else None
    key = _joined(words) if said is None else "yes" if said else "no"
    return (key if key != own.key else f"{key}?"), own.key


class Truth:
    """The true answer to a question, and how answers are compared with it."""

    def __init__(self, truth: str, question: str, synonyms: Synonyms) -> None:
        self.text = truth.strip()
        self.tokens = tokens(self.text)
        self.question = tokens(question)
        self.words = [word for word in self.tokens if word not in DELIMITERS]
        self.content = phrase_words(self.tokens) or self.words
        self.joined = "".join(self.content)
        self.content_set = frozenset(self.content)
        self.options = choices.options(question)
        self.letters = choices.true_letters(self.text, self.options)
        self.letter, self.option = (None, self.text) if self.letters else self._choice(question)
        self.polar = None if self.letter or self.letters else truth_polarity(self.tokens, self.question)
        self.quantity = whole_quantity(self.tokens, FILLER) if self._may_be_quantity() else None
        self.counted = names_of((*counted_nouns(self.question), *self.quantity.noun)) if self.quantity else frozenset()
        self.place = Place.of(self.tokens, self.question)
        self.direction = whole_comparison(self.words)
        self.comparison = comparison(self.tokens)
        self.negated = not NEGATORS.isdisjoint(self.tokens)
        self.items = items(self.tokens) if self._is_list() else []
        self.names: ClassNames | None = None
        if self.words and len(truth) <= MAX_NAME_CHARS:
            self.names = class_names((truth.strip(" .,;:!?\"'"),), synonyms)
        self.synonyms = synonyms
        self.alternatives = self._alternatives()
        asked = frozenset(phrase_words(self.question)) - self.alternatives
        modifiers = MODIFIERS if MODIFIERS.isdisjoint(self.content) else frozenset()
        self.added = (asked | modifiers) - {*self.content}

        others = (
            self.letter,
            self.letters,
            self.direction is not None,
            self.comparison,
            self.place,
            self.items,
            self.alternatives,
            self.negated,
        )
        self.plain = bool(self.words) and self.polar is None and not any(others) and _ORDERED.isdisjoint(self.words)
        self.opposites = frozenset(OPPOSITES[word] for word in self.content if word in OPPOSITES)

    @property
    def key(self) -> str:
        """The truth as a class."""
        return _joined(self.tokens) if self.polar is None else "yes" if self.polar else "no"

    def agreement(self, answer: str) -> Agreement:
        """Agreement of an answer."""
        answer = answer.strip()
        if not self.words:
            return EQUAL if answer == self.text else DIFFERENT
        words = tokens(answer)
        if words == self.tokens:
            return EQUAL
        if 2 * len(set(words)) <= len(words) and repeats(words):
            return self._word_overlap(phrase_words(words) or words)
        if self.plain and _STRUCTURE.isdisjoint(words):
            return self._plain_agreement(words)
        stated = conclusion(answer)
        if stated is not answer:
            words = tokens(stated)
        words = said_once(words)
        return EQUAL if words == self.words else self._by_type(stated, words)

    def _by_type(self, answer: str, words: list[str]) -> Agreement:
        """Agreement of an answer, and its tokens, by the type of the truth."""
        if self.letters or self.letter:
            return self._choices_agreement(answer) if self.letters else self._choice_agreement(answer, words)
        if self.polar is not None:
            return EQUAL if polarity(words, self.question) is self.polar else DIFFERENT
        if self.quantity:
            return self._quantity_agreement(words) or self._overlap(words)
        if len(words) <= _MAX_SENTENCE:
            if self.place and (value := self.place.agreement(words)) is not None:
                return Agreement(value, True)
            if self.direction is not None and (found := directions(affirmed(words))):
                return EQUAL if found == {self.direction} else DIFFERENT
        return self._phrase_agreement(words)

    def _plain_agreement(self, words: list[str]) -> Agreement:
        """Agreement of an answer without sentence structure with a truth that is a quantity or a phrase."""
        words = first_of_two(words)
        if self.quantity:
            return self._quantity_agreement(words) or self._word_overlap(phrase_words(words))
        facts = [word for word in words if word not in SKIPPED]
        content = [STEMS[word] for word in facts]
        return EQUAL if self._names_truth(facts, content) else self._word_overlap(content)

    def _choice(self, question: str) -> tuple[str | None, str]:
        """Letter and text of the true option; (None, truth) if the question is not multiple-choice."""
        letter, text = choices.without_letter(self.text)
        if letter and (letter in self.options or not self.options):
            return letter, text
        bare = choices.chosen_letters(self.text) if len(self.words) == 1 and len(self.words[0]) == 1 else []
        if bare and (self.options or self.text.strip(" .()").isupper()):
            return bare[0], self.options.get(bare[0], "")
        same = [key for key, option in self.options.items() if tokens(option) == self.tokens]
        return (same[0], self.text) if len(same) == 1 else (None, self.text)

    def _may_be_quantity(self) -> bool:
        return not (self.letter or self.letters) and any(word[-1].isdecimal() or word in _COUNTS for word in self.words)

    def _is_list(self) -> bool:
        listed = [word for word in self.tokens if word in DELIMITERS or word == "and"]
        short = all(len(item) <= _MAX_ITEM for item in items(self.tokens))
        return bool(listed) and short and len(items(self.tokens)) > 1 and _ORDERED.isdisjoint(self.tokens)

    def _alternatives(self) -> frozenset[str]:
        """Stems of the words that a question offers besides the truth ("rural or urban")."""
        words = [word for word in self.question if word not in ("a", "an", "the")]
        near = {w for i, word in enumerate(words) if word == "or" for w in (*words[i - 1 : i], *words[i + 1 : i + 2])}
        return frozenset(phrase_words(sorted(near))) - {*self.content}

    def _choices_agreement(self, answer: str) -> Agreement:
        """Jaccard similarity of the options that an answer chooses, by letters or by texts, and the true ones."""
        found = {*(choices.several_letters(answer, self.options) or choices.chosen_letters(answer))}
        found = found or {*self._named_options(answer)}
        return Agreement(len(found & self.letters) / len(found | self.letters), True)

    def _choice_agreement(self, answer: str, words: list[str]) -> Agreement:
        letters = choices.chosen_letters(answer)
        if letters and letters != [self.letter]:
            return DIFFERENT
        if not letters and self.letter in choices.denied_letters(answer):
            return DIFFERENT
        rest = choices.without_letter(answer)[1] if letters else answer
        named = self._named_options(rest)
        if letters:
            return EQUAL if not named or self.letter in named else DIFFERENT
        if self.options:
            return EQUAL if named == [self.letter] else DIFFERENT
        return _truth(self.option, "", self.synonyms).agreement(answer) if self.option.strip() else DIFFERENT

    def _named_options(self, answer: str) -> list[str]:
        """Letters of the options that an answer names; "more than 3" does not name the option "3"."""
        said = tokens(answer)
        same = [key for key, text in self.options.items() if tokens(text) == said]
        if len(same) == 1:
            return same
        options = {key: _truth(text, "", self.synonyms) for key, text in self.options.items()}
        named = {key: option.words for key, option in options.items() if option.named_in(answer)}
        return [key for key, own in named.items() if not any(_is_inside(own, other) for other in named.values())]

    def named_in(self, answer: str) -> bool:
        """Whether an answer states this truth, or contains its words."""
        if self.agreement(answer).value == 1:
            return True
        return _contains(affirmed(tokens(answer)), self.words)

    def _quantity_agreement(self, words: list[str]) -> Agreement | None:
        """Agreement with a quantity; None if the words decide, since the answer states another noun or no number."""
        assert self.quantity
        if len(words) > _MAX_SENTENCE:
            return None
        stated = stated_quantity(words, self.counted)
        if stated is None:
            return None if self.quantity.noun else DIFFERENT
        if stated.agrees(self.quantity):
            return EQUAL
        return None if self.quantity.noun and stated[:3] == self.quantity[:3] else DIFFERENT

    def _compared_agreement(self, words: list[str]) -> Agreement | None:
        """Agreement of "more A than B" with the side that the question asks for; None for other answers."""
        stated, asked = comparison(words), asked_direction(self.question)
        if not stated or not asked or not NEGATORS.isdisjoint(words):
            return None
        greater, smaller = ({*side} & (self.content_set | self.alternatives) for side in stated[1:])
        chosen, other = (greater, smaller) if asked[1] > 0 else (smaller, greater)
        if not other or chosen == other:
            return None
        return EQUAL if chosen and chosen <= self.content_set else DIFFERENT

    def _phrase_agreement(self, words: list[str]) -> Agreement:
        words = without_unknown(words)
        if self.alternatives and "than" in words and (compared := self._compared_agreement(words)):
            return compared
        if self._offers_alternatives(words):
            return DIFFERENT
        stated = comparison(words) if self.comparison else None
        if stated and self.comparison and {*stated[1:]} == {*self.comparison[1:]} and stated[0] == self.comparison[0]:
            return EQUAL if stated == self.comparison else DIFFERENT
        if self._denies_the_other(words) or any(map(self._means, statements(words))):
            return EQUAL
        if self.items:
            return max(map(self._list_agreement, [words, *statements(words)]))
        return DIFFERENT if _is_list_of_guesses(words) else self._overlap(words)

    def _offers_alternatives(self, words: list[str]) -> bool:
        """Whether an answer hedges, or affirms another alternative of the question."""
        if "or" in words and "or" not in self.tokens:
            return True
        return not self.negated and not self.alternatives.isdisjoint(phrase_words(affirmed(words)))

    def _denies_the_other(self, words: list[str]) -> bool:
        """Whether an answer only denies the other of two alternatives of the question: "not urban"."""
        content = {*phrase_words(words)} - {*NEGATORS}
        return (
            len(self.alternatives) == 1
            and content == self.alternatives
            and COMMA not in self.question
            and not phrase_words(affirmed(words))
        )

    def _means(self, statement: Sequence[str]) -> bool:
        """Whether a statement means the truth: the same words, joined words, or a synonym."""
        facts = [word for word in statement if word not in SKIPPED]
        return self._names_truth(facts, [STEMS[word] for word in facts])

    def _names_truth(self, facts: list[str], content: list[str]) -> bool:
        """Whether content words, and their stems, mean the truth."""
        if content == self.content and not self.negated:
            return True
        names, bare = self.names, facts[:-1] if facts and facts[-1] in HEADS else facts
        if not facts or self.negated is NEGATORS.isdisjoint(facts):
            return bool(facts) and names is not None and names.is_name(facts)
        if content == self.content or "".join(content) == self.joined or content[: len(bare)] == self.content:
            return True
        if names and (names.is_name(facts) or names.is_name(bare)):
            return True
        added = self.added.intersection(content)
        return bool(added) and [word for word in content if word not in added] == self.content

    def _list_agreement(self, words: list[str]) -> Agreement:
        """Jaccard similarity of the items, each matched by meaning."""
        true = [_truth(" ".join(item), "", self.synonyms) for item in self.items]
        given = items(affirmed(words))
        if not given or len(given) > _MAX_ITEMS:
            return DIFFERENT
        left = list(given)
        hits = 0
        for truth in true:
            match = next((item for item in left if truth._means(item) or item == truth.words), None)
            if match is not None:
                left.remove(match)
                hits += 1
        return Agreement(hits / (len(true) + len(given) - hits), True)

    def _overlap(self, words: list[str]) -> Agreement:
        """Jaccard similarity of the content words; 0 if the answer negates or contradicts the truth."""
        said = words if self.negated else affirmed(words)
        if self.negated and NEGATORS.isdisjoint(words):
            return DIFFERENT
        content = phrase_words(said)
        value = self._word_overlap(content).value
        if not value or (value == 1 and content != self.content and not _ORDERED.isdisjoint(self.tokens)):
            return DIFFERENT
        first = sentences(said)
        if len(first) == 1:
            value = max([value, *(jaccard(phrase_words(s), self.content) for s in statements(said))])
        return Agreement(value, False)

    def _word_overlap(self, content: list[str]) -> Agreement:
        """Jaccard similarity of content words; 0 if one is the opposite of a true one, or only general nouns agree."""
        if self.opposites and any(word in self.opposites and OPPOSITES[word] not in content for word in content):
            return DIFFERENT
        common = self.content_set.intersection(content)
        if not common or (common <= GENERAL_NOUNS and not self.content_set <= GENERAL_NOUNS):
            return Agreement(0.0, False)
        return Agreement(jaccard(content, self.content), False)


_STRUCTURE = DELIMITERS | VERBS | CUTS | NEGATORS | word_set("or and than answer")
"""Words that give an answer more structure than a phrase has."""
_MAX_SENTENCE = 60
"""Words of an answer in which a value of the truth's type is looked for."""
_MAX_ITEM = 4
"""Words of an item of a list."""
_MAX_ITEMS = 64
_MIN_GUESSES = 3
_COUNTS = word_set("none dozen pair couple hundred thousand million")

_truth = functools.lru_cache(maxsize=1 << 13)(Truth)


def jaccard(a: Sequence[str], b: Sequence[str]) -> float:
    """Jaccard similarity of two multisets; 0 if both are empty."""
    rest = dict.fromkeys(b, 0)
    for word in b:
        rest[word] += 1
    common = 0
    for word in a:
        if rest.get(word):
            rest[word] -= 1
            common += 1
    union = len(a) + len(b) - common
    return common / union if union else 0.0


def _is_list_of_guesses(words: Sequence[str]) -> bool:
    """Whether an answer to a question with one answer is a bare list."""
    return COMMA in words and VERBS.isdisjoint(words) and len(items(words)) >= _MIN_GUESSES


def _contains(words: Sequence[str], own: Sequence[str]) -> bool:
    """Whether words contain others, at least one, in a row."""
    return bool(own) and any(words[i : i + len(own)] == own for i in range(len(words) - len(own) + 1))


def _is_inside(own: Sequence[str], other: Sequence[str]) -> bool:
    return len(own) < len(other) and _contains(other, own)


def _joined(words: Sequence[str]) -> str:
    return "".join(word for word in words if word not in DELIMITERS)
