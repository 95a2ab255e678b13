"""What a dataset's question says about the form of its answer."""

from __future__ import annotations

import re

_STATES_FORM = re.compile(
    r"\b(?:(?:\d+|one|two|three|few|several|single|fewer|own|these|following) words?"
    r"|words? (?:or (?:less|fewer|phrases?)|limit|long|only)"
    r"|phrases?|sentences?|paragraphs?|briefly|concise(?:ly)?|json|yaml|xml|markdown"
    r"|in (?:great(?:er)? |more |full |much |as much )?details?|with (?:\w+ )?details?"
    r"|(?:give|provide|include|add) (?:\w+ )?details?"
    r"|be (?:very |as )?(?:brief|short|detailed)|in (?:brief|short)|keep (?:it|your \w+) (?:brief|short)"
    r"|(?:short|brief|detailed|one-word|single-word)(?:,? (?:and )?\w+)? "
    r"(?:answers?|captions?|descriptions?|explanations?|replies|reply|responses?|summar(?:y|ies)|account|reports?)"
    r"|yes or no|one per line|(?:bullet(?:ed)?|numbered)\s(?:points?|list)"
    r"|(?:answer|respond|reply|output) (?:with|in|using|only|as|by)|separated by|comma-separated"
    r"|(?:as|in|return|output|give|provide) an? (?:[\w-]+ )?(?:list|array|table|tuple|dictionary))\b",
    re.IGNORECASE,
)

_SENTENCE_END = re.compile(r"(?<=[.?!])\s+|\n")
_CLAUSE = re.compile(
    r"(?:,\s*(?:and\s+|then\s+)?|\s+and\s+|\s+then\s+)(?=(?:output|return|report|give|provide|write|use)\b)",
    re.IGNORECASE,
)
_LEAD = (
    r",?\s{0,3}\b(?:in|using|with|as|by|like)\s+"
    r"(?:(?:the|a|an|this|your|valid|following|output|strict|bbox|box|bounding)\s+)*"
)
_LANGUAGES = r"(?:json|yaml|xml|csv|markdown|python)"
_NOTATIONS = r"(?:xyxy|xywh|cxcywh|yolo|coco|(?:pascal )?voc)"
_UNITS = r"(?:pixels?|percent(?:ages?)?|thousandths)"
_TEMPLATE = (
    r"(?:<box>.{0,200}</box>|(?<![\[({<])[\[({<]{1,4}\s{0,3}(?:x|cx|left)[\w-]*[\s,>]+<?(?:y|cy|top)[\w-]*\b.{0,200}[\])}>]"
    r"|[\[{]+\s*[\"'].*[\]}]"
    r"|x_?(?:1|min)[\s,]+y_?(?:1|min)[\s,]+(?:x_?(?:2|max)|w\w*)[\s,]+(?:y_?(?:2|max)|h\w*))"
)
"""A box with names in the place of numbers, such as ``[x1, y1, x2, y2]``, or an object with keys."""
_FORMS = re.compile(
    rf"{_LEAD}form(?:at)?\b[^\[{{]{{0,80}}[\[{{].{{0,200}}[\]}}]+"
    rf"|{_LEAD}{_LANGUAGES}\b(?:[\s-]+(?:format|form|code|list|array|objects?|string|block|output))*"
    rf"(?:[\s,:]*(?:(?:such as|like|e\.g\.)[\s,:]*)?{_TEMPLATE})?"
    rf"|{_LEAD}{_NOTATIONS}[\s-]+(?:format|form|style)\b"
    rf"|,?\s{{0,3}}\b(?:in|as|using)\s+(?:the\s+)?(?:(?:absolute|image|relative)\s+)?{_UNITS}\b"
    r"(?:\s+(?:coordinates?|values?|units?))?(?:\s+of\s+the\s+image\b(?:['\u2019]s\s+(?:size|width\s+and\s+height))?)?"
    r"|,?\s{0,3}\b(?:normali[sz]ed|scaled)\s+(?:to|between|from|in)\s.{0,40}?\d+\s*(?:-|\u2013|,|to|and)\s*\d+[\])]*"
    rf"|(?:{_LEAD})?(?:\blists?\s+(?:of\s+)?)?\s{{0,3}}:?\s{{0,3}}{_TEMPLATE}",
    re.IGNORECASE,
)
_ABOUT_FORM = re.compile(
    r"a|absolute|all|an|and|answer|answers|are|array|as|axis|bbox|bbox_2d|bboxes|be|between|block|bottom|"
    r"bounding|box|boxes|by|center|centre|class|coco|code|coordinate|coordinates|corner|corners|csv|cxcywh|each|"
    r"every|float|floats|following|for|form|format|from|give|height|image|images|in|include|int|integer|"
    r"integers|is|it|its|json|key|keys|label|labels|left|like|list|location|locations|lower|markdown|max|min|"
    r"must|name|normalised|normalized|number|numbers|object|objects|of|only|or|order|output|pascal|percent|"
    r"percentage|pixel|pixels|position|positions|provide|python|range|relative|report|respond|response|result|"
    r"results|return|right|scaled|should|size|string|style|such|the|their|them|then|these|thousandths|to|top|"
    r"tuple|unit|units|upper|use|using|valid|value|values|voc|where|width|with|write|x|xml|xywh|xyxy|y|yaml|"
    r"yolo|your"
    r"|[xy][12]"
)
"""Words of sentences that say nothing but what form the boxes have."""
_FORM = re.compile(
    rf"\b(?:{_LANGUAGES}|{_NOTATIONS}|{_UNITS}|normali[sz]ed|absolute|form(?:at)?|(?:a|the) list|array|tuple|bbox_2d)\b"
    rf"|{_TEMPLATE}",
    re.IGNORECASE,
)
_ASKS = re.compile(
    r"\?|\b(?:find|detect|locate|localize|identify|point|show|mark|list|give|provide|output|return|report|where|which"
    r"|what|outline|highlight|ground|draw|describe|box|tell)\b",
    re.IGNORECASE,
)
_WORD = re.compile(r"[^\W\d_]\w*")

_MAX_CHARS = 600
"""Length of a sentence that is searched; longer ones would take long, and are no questions about boxes."""


def states_form(question: str) -> bool:
    """Whether a question says of what form the answer is: a length, a list, one of two words."""
    return _STATES_FORM.search(question) is not None


def without_box_form(question: str) -> str:
    """A question about boxes without what it says of their notation and unit.

    Sentences that say nothing else go, unless nothing that asks for something would be left.
    """
    sentences = _SENTENCE_END.split(question)
    shorter = list(map(_without_forms, sentences))
    if shorter == sentences and not any(map(_is_about_form, sentences)):
        return question
    kept = [short for short, whole in zip(shorter, sentences, strict=True) if not _is_about_form(whole)]
    return " ".join(filter(None, kept if any(map(_ASKS.search, kept)) else shorter)) or question


def _without_forms(sentence: str) -> str:
    """The sentence without the clauses and phrases about the form of boxes."""
    if len(sentence) > _MAX_CHARS:
        return sentence
    others = _CLAUSE.split(sentence)[1:]
    if others and _is_about_form(others[-1]):
        end = sentence[-1] if sentence[-1] in ".?!" else ""
        sentence = sentence[: sentence.rindex(others[-1])]
        sentence = re.sub(r"(?:,|\s+and|\s+then|\s)*$", "", sentence) + end
    return _FORMS.sub("", sentence)


def _is_about_form(text: str) -> bool:
    """Whether a text says of what form the boxes are, and nothing else."""
    if len(text) > _MAX_CHARS:
        return False
    words = _WORD.findall(re.sub(_TEMPLATE, " ", text).lower())
    return _FORM.search(text) is not None and all(map(_ABOUT_FORM.fullmatch, words))
