"""Hostile texts and files, and what every command has to do with them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

OWNED = "<script>alert('owned')</script>"
STRINGS = {
    "colour": "\x1b[31mred\x1b[0m",
    "title": "\x1b]0;owned\x07",
    "C1": "\x9b31m\x9d0;owned\x9c",
    "overwrite": "long text\rgone\b\b\x7f\x00",
    "lines": "first\ngeovlm-ray: forged\u2028line\x85next\x0b\x0c",
    "closing tag": "[/b]",
    "tag": "my[red]run",
    "link tag": "[link=file:///etc/passwd]click[/link]",
    "emoji code": ":boom:",
    "script": OWNED,
    "attribute": "\" onmouseover='owned()' <img src=x onerror=alert(1)>",
    "template": "{{ 7 * 7 }} {0.__class__} %s %(x)d ${HOME} `id`",
    "bidi": "photo\u202egnp.exe\u2066\u200f",
    "zero width": "a\u200bb\ufeffc\u00ad\u2060",
    "surrogate": os.fsdecode(b"caf\xe9\xff"),
    "formula": "$\\frac{1}{0}$ $x",
    "markdown": "| a | `b` | [x](javascript:alert(1))\n# h\n---\n",
    "option": "--help=\x1b[5m",
    "wide": "\u6c49\u5b57" * 60,
    "combining": "e" + "\u0301" * 400,
    "long": "x" * 60_000,
}
NAMES = {key: text for key, text in STRINGS.items() if "\0" not in text and len(os.fsencode(text)) < 200}
"""Those that can be an argument or the name of a file."""


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**29)


def _deep(opening: str, closing: str, depth: int = 100_000) -> bytes:
    return (opening * depth + closing * depth).encode()


CONTENTS: dict[str, bytes] = {
    "empty": b"",
    "newline": b"\n",
    "NUL": b"\0" * 5000,
    "random": bytes(range(256)) * 20,
    "BOM only": b"\xef\xbb\xbf",
    "UTF-16": '{"step": 1}\n'.encode("utf-16"),
    "Latin-1": b'{"id": "caf\xe9"}\n',
    "truncated": b'{"step": 1, "rew',
    "half line": b'{"step": 1}\n{"step": 2, "re',
    "NaN": b'{"step": NaN, "reward/mean": Infinity, "seconds": -Infinity}\n',
    "1e999": b'{"step": 1e999, "seconds": 1e999, "steps": -1e999}\n',
    "digits": b'{"step": ' + b"9" * 5000 + b"}\n",
    "big number": b'{"step": ' + b"9" * 400 + b"}\n",
    "deep lists": _deep("[", "]"),
    "deep objects": _deep('{"a":', "}"),
    "duplicates": b'{"step": 1, "step": 2, "step": "x"}\n',
    "long string": b'{"step": "' + b"a" * 10_000_000 + b'"}\n',
    "long key": b'{"' + b"k" * 10_000_000 + b'": 1}\n',
    "list": b"[1, 2]\n",
    "null": b"null\n",
    "number": b"7\n",
    "escapes": json.dumps({text: text for text in STRINGS.values()}).encode() + b"\n",
    "raw escapes": "\x1b[31m: \x9b [/b]\n".encode(),
    "aliases": b"a: &a [x,x,x,x,x,x,x,x,x]\n"
    + b"".join(b"%c: &%c [%s]\n" % (n, n, b",".join([b"*%c" % (n - 1)] * 9)) for n in range(98, 110)),
    "cycle": b"run: &a {name: *a}\n",
    "python tag": b"run: !!python/object/apply:os.system ['echo owned']\n",
    "parquet magic": b"PAR1" + b"\0" * 100 + b"PAR1",
    "zip bomb": b"PK\x03\x04" + b"\0" * 400,
}
SPECIAL: dict[str, Callable[[Path], None]] = {
    "folder": Path.mkdir,
    "pipe": os.mkfifo,
    "zeros": lambda path: path.symlink_to("/dev/zero"),
    "random device": lambda path: path.symlink_to("/dev/urandom"),
    "dangling": lambda path: path.symlink_to("/nowhere/at/all"),
    "loop": lambda path: path.symlink_to(path.name),
    "sparse": _sparse,
    "absent": lambda path: None,
}
FILES: dict[str, Callable[[Path], object]] = {
    **{name: (lambda path, content=content: path.write_bytes(content)) for name, content in CONTENTS.items()},
    **SPECIAL,
}


def place(path: Path, kind: str) -> Path:
    """Put a hostile file of a kind at a path, in place of what is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    FILES[kind](path)
    return path


MAX_ERROR = 20_000
"""Characters that a command may print on standard error."""
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]"
)


def problem(code: int, output: str, error: str) -> str:
    """What is wrong with the end of a command; empty if it is as it should be."""
    both = output + error
    messages = [line for line in error.splitlines() if line.startswith("geovlm-ray ")]
    raw = _CONTROL.search(both)
    shown = repr(both[max(0, raw.start() - 60) : raw.end() + 20]) if raw else ""
    problems = {
        f"traceback: {both.strip()[-300:]!r}": "Traceback" in both,
        f"exit code {code}": code not in (0, 1, 2),
        f"a control character in the output: {shown}": raw is not None,
        f"{len(messages)} error messages: {messages!r:.300}": len(messages) > 1,
        "exit code 1 without a word": code == 1 and not both.strip(),
        f"{len(error)} characters on standard error": len(error) > MAX_ERROR,
    }
    return "; ".join(text for text, holds in problems.items() if holds)


def page_problem(page: str) -> str:
    """Whether a page has a hostile text as markup; empty if not."""
    for raw in (OWNED, "<img src=x", "\x1b", "\x9b"):
        if raw in page:
            at = page.index(raw)
            return f"{raw!r} in the page: {page[max(0, at - 100) : at + 40]!r}"
    return ""
