"""Answers that say in words that there is no object."""

from __future__ import annotations

import functools
import re

from geovlm_ray.tasks.answers.phrases import CUTS, MODIFIERS, SKIPPED, VERBS
from geovlm_ray.tasks.answers.quantities import names_of
from geovlm_ray.tasks.answers.words import tokens, word_set

MAX_CHARS = 400
"""A longer text is a discussion, not the answer "none"."""

_EMPTY = re.compile(r"\{?(?:[\"']?\w{1,20}[\"']?:)?(?:\[{1,3}\]{1,3}|\{\}|\(\)|null)?\}?\.?")
_NOTHING = re.compile(
    r"\W*(?:none|nothing|no|n/a|null|nil|empty|zero|0|not (?:found|visible|present|detected|any|applicable))\b"
    r"(?!,? (?:problem|worries))|.*\[\s*\]\W*\Z",
    re.IGNORECASE | re.DOTALL,
)
_DENIES = re.compile(
    r"\b(?:(?:there|here) (?:is|are|were|was|seems? to be|appears? to be) (?:no|not|none|zero|0|nothing)\b"
    r"|there (?:is|are)n['’]?t\b"
    r"|(?:see|saw|find|found|detect|detected|shows?|contains?|has|have|observe|observed|identify|identified|:) "
    r"(?:no|none|nothing|zero|0|neither)\b"
    r"|no\b[^.;!?]{0,60}\b(?:found|detected|visible|present|seen|identified|observed|here|exists?|in (?:the|this|it)\b)"
    r"|(?:cannot|can['’]?t|can not|could not|couldn['’]?t|do not|don['’]?t|did not|didn['’]?t|unable to|failed to) "
    r"(?:see|find|detect|identify|locate|spot|observe) (?:any|a|an|the|such|that|it|them|one|this)\b"
    r"|(?:does|do|did)(?: not|n['’]?t) (?:seem to |appear to )?(?:contain|show|have|include|exist|appear)"
    r"|(?:is|are|was|were|be)(?: not|n['’]?t) "
    r"(?:any\b|a\b|visible|present|found|detected|seen|there\b"
    r"|in (?:the|this) (?!cent|mid|left|right|top|bottom|upper|lower))"
    r"|but (?:no|none)\b"
    r"|[:,.!;] ?(?:no|zero|0|none)\b|: ?not\b"
    r"|\b(?:list|answer|result|output|set|it|they)(?: of [a-z ]{1,30})? (?:is|are) empty\b|\bempty list\b"
    r"|\babsent\b|\bwithout any\b|\bdevoid of\b)",
    re.IGNORECASE,
)
_REFUSES = re.compile(
    r"\b(?:see|view|access|process|open|load|analy[sz]e|identify|find) (?:the|this|any|an|your) "
    r"(?:image|images|picture|photo|attachment)\b"
    r"|\b(?:assist|help you|help with|as an ai|not enough information|no image|cannot determine|can['’]?t determine"
    r"|no (?:idea|answer|clue|comment|information|guess|opinion|response|reply|way (?:to|of)|means (?:to|of))"
    r"|(?:don['’]?t|do not) know"
    r"|(?:cannot|can['’]?t|can not|unable to|impossible to|not possible to) (?:tell|say|know|judge)"
    r"|unsure|uncertain)\b",
    re.IGNORECASE,
)
_AFFIRMS = re.compile(
    r"\b(?:(?:there (?:is|are)|contains|shows|(?:i|can) see) "
    r"(?:a|an|one|two|three|four|five|some|several|many|multiple|[1-9]\d*)|not sure"
    r"|(?:: ?|found |see |detect(?:ed)? )(?:one|two|three|four|five|several|many|[1-9]\d*)"
    r"|it (?:contains|has|shows) (?!no|none|nothing|zero|neither|any)\w+"
    r"|(?:it|they) (?:is|are) (?:located|(?:in|at|on|to) the (?:cent|mid|left|right|top|bottom|upper|lower)\w*))\b"
    r"|\A\W*(?:one|two|three|four|five|several|many|[1-9]\d*) [a-z]",
    re.IGNORECASE,
)
_CONTRASTS = re.compile(
    r"\b(?:no (?:problem|doubt|question)"
    r"|but(?! (?:no|none|not|there (?:is|are)(?: not?|n['’]t)|i (?:do|can|could|did)(?: ?not|n?['’]t)"
    r"|i (?:see|find) no)\b)"
    r"|however|except|although|though|instead|other than|apart from)\b",
    re.IGNORECASE,
)


_POLITE = re.compile(
    r"\A\W*(?:(?:i['’]m|i am|we are) )?(?:very |really )?(?:sorry|afraid|apologi[sz]e)\b[^.;!?]{0,40}?"
    r"(?:\bbut\b|\bthat\b|,)",
    re.IGNORECASE,
)
_INSTRUCTIONS = word_set(
    "detect find locate localize identify point mark output return give provide report list draw outline highlight "
    "segment ground search all every each any object instance target bounding box bbox coordinate position location "
    "format json label class category following where what which how do does you me could"
)
"""Words of a question about boxes that name no object."""
_NO_OBJECTS = SKIPPED | VERBS | MODIFIERS | CUTS | _INSTRUCTIONS
_SENTENCE_END = re.compile(r"[.;!?\n]+")
_CLAUSE_END = re.compile(r"[.,;:!?\n]+")
_CLAUSE_OR_CONTRAST = re.compile(r"[.,;!?\n]+|\bbut\b", re.IGNORECASE)
_NEGATES = re.compile(
    r"\b(?:no|not|none|nothing|zero|0|neither|cannot|without|devoid|absent|empty|unable|failed)\b|n['’]t\b",
    re.IGNORECASE,
)
_STATES = re.compile(
    r"\b(?:is|are|was|were|has|have|can|shows?|contains?|depicts?|located|parked|found|visible)\b", re.IGNORECASE
)


def denies_first(text: str) -> bool:
    """Whether the first clause of a text that states something says that there is no object.

    "In this image, there are no ships." does; "The ship is at the left, not in the centre." does not.
    """
    for clause in _CLAUSE_END.split(text):
        if _NEGATES.search(clause):
            return says_none(clause.strip())
        if _STATES.search(clause):
            return False
    return says_none(text)


def says_none(text: str, question: str = "") -> bool:
    """Whether a text without boxes says that there is no object: "None.", "[]", "There are no ships."

    A refusal ("I cannot see the image"), a hedge ("no idea") and a denial with an exception ("no ships except one") do
    not. Of a text that names the object of the ``question``, the sentences that name it decide: "The image shows a
    harbor. There are no airplanes."
    """
    if len(text) > MAX_CHARS:
        return False
    if _EMPTY.fullmatch("".join(text.split())):
        return True
    text = _POLITE.sub("", text)
    if _REFUSES.search(text) or _CONTRASTS.search(text):
        return False
    asked = _asked_names(question)
    naming = [clause for clause in _CLAUSE_OR_CONTRAST.split(text) if not asked.isdisjoint(tokens(clause))]
    if not naming:
        return not _AFFIRMS.search(text) and _denies(text)
    if any(_AFFIRMS.search(clause) or (_STATES.search(clause) and not _NEGATES.search(clause)) for clause in naming):
        return False
    return any(_denies(part) for part in _SENTENCE_END.split(text) if not asked.isdisjoint(tokens(part)))


def _denies(text: str) -> bool:
    return bool(_NOTHING.match(text) or _DENIES.search(text))


@functools.lru_cache(maxsize=4096)
def _asked_names(question: str) -> frozenset[str]:
    """The words, and their synonyms, for the object that a question about boxes asks for, without its place."""
    words = tokens(question)
    ends = [*(i for i, word in enumerate(words) if word in CUTS), len(words)]
    named = ([word for word in words[:end] if word not in _NO_OBJECTS] for end in ends)
    return names_of(next(filter(None, named), []))
