"""Words of answers and class names in a normal form, in which spelling variants are equal.

The normal form of a word is its case-folded singular in American spelling; number words are digits. `tokens` also keeps
the punctuation that delimits names and sentences.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

MAX_CACHED_WORD = 64
"""Longer words are not cached, so that adversarial answers cannot fill the caches."""
MAX_CACHED_WORDS = 1 << 16

COMMA, COLON, OPEN, CLOSE, SENTENCE, LINE, RANGE = ",", ":", "(", ")", ".", "\n", "to"
DELIMITERS = frozenset({COMMA, COLON, OPEN, CLOSE, SENTENCE, LINE})
"""Tokens that are no words."""

_NUMBER_WORDS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
NUMBERS = {word: str(n) for n, word in enumerate(_NUMBER_WORDS)} | {
    word: str(n) for word, n in zip(_TENS, range(20, 100, 10), strict=True)
}
_SPELLING = {
    "harbour": "harbor", "grey": "gray", "metre": "meter", "kilometre": "kilometer", "centimetre": "centimeter",
    "centre": "center", "central": "center", "colour": "color", "theatre": "theater", "neighbourhood": "neighborhood",
    "plough": "plow", "ploughed": "plowed", "aeroplane": "airplane", "tonne": "ton", "litre": "liter",
    "kerb": "curb", "tyre": "tire", "programme": "program", "defence": "defense", "fibre": "fiber",
    "greyish": "grayish", "coloured": "colored", "organised": "organized", "urbanised": "urbanized",
    "urbanisation": "urbanization", "mould": "mold", "storey": "story", "artefact": "artifact", "jewellery": "jewelry",
    "travelled": "traveled", "labelled": "labeled", "aluminium": "aluminum", "wharves": "wharf", "moulded": "molded",
    "harbours": "harbor",
}  # fmt: skip
_IRREGULAR = {
    "leaves": "leaf", "wharves": "wharf", "men": "man", "women": "woman", "people": "person", "children": "child",
    "buses": "bus", "busses": "bus", "gases": "gas", "roofs": "roof", "rooves": "roof", "shelves": "shelf",
    "houses": "house", "warehouses": "warehouse", "greenhouses": "greenhouse", "apices": "apex", "axes": "axis",
    "axis": "axis", "oases": "oasis", "oasis": "oasis", "lens": "lens", "gas": "gas", "bus": "bus", "series": "series",
    "analysis": "analysis", "always": "always", "yes": "yes", "is": "is", "was": "was", "has": "has", "this": "this",
    "its": "its", "does": "does", "as": "as", "us": "us", "less": "less", "canvas": "canvas", "campuses": "campus",
    "minus": "minus", "plus": "plus", "perhaps": "perhaps", "movies": "movie", "prairies": "prairie", "calves": "calf",
    "christmas": "christmas", "texas": "texas", "kansas": "kansas", "besides": "besides", "tens": "tens",
    "hundreds": "hundreds", "thousands": "thousands", "millions": "millions", "dozens": "dozens", "whereas": "whereas",
    "ones": "ones",
}  # fmt: skip

_TOKEN = re.compile(
    r"(?<![^\W\d_])(?:[kcdm]?m|ft)[23](?!\w)|[^\W\d_]+(?:'[^\W\d_]+)?"
    r"|(?<![\w.])-?\d{1,3}(?:,\d{3})+(?:\.\d+)?|(?<![\w.,])\d{1,3}(?: \d{3})+(?!\w)"
    r"|(?<![\w.)])-?\d+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+"
    r"|[,;:.!?()\[\]{}\"|/&+=%°<>~±§\n]|(?<=\d) ?[-–—] ?(?=\d)|(?<!\S)[-–—]+\s"
)
_MARKUP = re.compile(
    r"\\(?:boxed|text(?:bf|it|rm|tt)?|math(?:rm|bf|it|tt)|emph|underline|displaystyle|left|right|,|;|!)"
)
_INVISIBLE = re.compile("[\u200b-\u200f\u2060\ufeff\u00ad]")
_TAG = re.compile(r"</?(?:b|i|u|p|br|em|li|ul|ol|sub|sup|pre|code|span|div|strong|answer|think)\s?/?>", re.I)
_CONTRACTION = re.compile(r"\b(it|that|there|here|what|this)'s\b")
_MARKED = re.compile(r"[^\x00-\x7f]|[\\$`*#^_'~<]")
_PUNCTUATION = str.maketrans(
    {
        "’": "'", "‘": "'", "ʼ": "'", "′": "'", "“": '"', "”": '"', "„": '"', "«": '"', "»": '"', "、": ",", "。": ".",
        "・": ",", "·": ",", "•": "\n", "●": "\n", "▪": "\n", "◦": "\n", "−": "-", "‐": "-", "‑": "-", "`": '"',
        "$": " ", "^": "", "_": " ", "…": ".", "|": "\n", "「": '"', "」": '"', "『": '"', "』": '"', "和": " and ",
        "及": " and ", "或": " or ", "与": " and ", "⁄": "/",
        **dict.fromkeys("✗✘❌", " no "), **dict.fromkeys("✓✔✅", " yes "),
    }
)  # fmt: skip
_PUNCTUATION_KINDS = {
    **dict.fromkeys(',[]{}"|/&', COMMA),
    **dict.fromkeys(".;!?", SENTENCE),
}


def word_set(text: str) -> frozenset[str]:
    """The words of a text, separated by spaces, as a set."""
    return frozenset(text.split())


class WordForms(dict[str, str]):
    """A cache of the normal forms of words; reading an absent word computes its form."""

    def __init__(self, form: Callable[[str], str]) -> None:
        super().__init__()
        self._form = form

    def __missing__(self, word: str) -> str:
        form = self._form(word)
        if len(word) <= MAX_CACHED_WORD and not word[-1].isdecimal():
            if len(self) >= MAX_CACHED_WORDS:
                self.clear()
            self[word] = form
        return form


def plain(text: str) -> str:
    """Case-folded text in Unicode's compatibility composition (NFKC), without LaTeX and Markdown markup."""
    if not _MARKED.search(text):
        return text.casefold()
    text = unicodedata.normalize("NFKC", _TAG.sub("", _MARKUP.sub(" ", text)))
    # Casefolding decomposes some letters, so compose again.
    text = unicodedata.normalize("NFKC", _INVISIBLE.sub("", text).replace("**", "").replace("__", "").casefold())
    text = _CONTRACTION.sub(r"\1 is", text.translate(_PUNCTUATION))
    return text.replace("can't", "cannot").replace("n't", " not").replace("*", "\n").replace("#", " ")


def tokens(text: str) -> list[str]:
    """Normal forms of the words of a text, numbers, and `DELIMITERS`, in order."""
    return list(map(_FORMS.__getitem__, _TOKEN.findall(plain(text))))


def words(text: str) -> list[str]:
    """Normal forms of the words and numbers of a text, in order."""
    return [token for token in tokens(text) if token not in DELIMITERS]


def number(text: str) -> str:
    """The shortest decimal notation of a number with digits and optional thousands separators."""
    if (
        text[-1] != "0"
        and text[0] != "."
        and "," not in text
        and " " not in text
        and (text[0] in "123456789" or text[:2] == "0.")
    ):
        return text
    value = float(text.replace(",", "").replace(" ", ""))
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)


def singular(word: str) -> str:
    """The singular of a lower-case English noun; other words, and singulars, are returned as they are."""
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith(("sses", "shes", "ches", "xes", "zes", "oes")):
        return word[:-2]
    return word[:-1]


def _form(token: str) -> str:
    first = token[0]
    if first.isalpha():
        word = token.removesuffix("'s").replace("'", "")
        word = _SPELLING.get(word, word)
        word = singular(word)
        return NUMBERS.get(word) or _SPELLING.get(word, word)
    if first.isdecimal() or (first in "-." and token[-1].isdecimal()):
        return number(token)
    if first in " -–—":
        return COMMA if token[-1].isspace() and first != " " else RANGE
    return _PUNCTUATION_KINDS.get(first, token)


_FORMS = WordForms(_form)
