"""The border to the terminal: hostile texts are shown and have no effect, on the console and on the streams."""

from __future__ import annotations

import ast
import io
import logging
import os
import sys
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text

from geovlm_ray.cli import main
from geovlm_ray.commands.progress import Progress
from geovlm_ray.core.terminal import MAX_CHARS, InertStream, LineFormatter, inert, inert_streams
from geovlm_ray.report.terminal import InertConsole
from tests.hostile import NAMES, STRINGS, problem
from tests.structure import CODE, TOP


@pytest.mark.parametrize("text", STRINGS.values(), ids=STRINGS)
def test_texts_become_one_printable_line(text: str) -> None:
    shown = inert(text)
    assert shown.isprintable()
    assert not problem(0, shown, "")
    if len(text) <= MAX_CHARS and text.isprintable():
        assert shown == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31m", "\\x1b[31m"),
        ("a\nb\tc", "a\\nb\\tc"),
        ("\x9b \u202e \u200b \ufeff", "\\x9b \\u202e \\u200b \\ufeff"),
        (os.fsdecode(b"caf\xe9"), "caf\\udce9"),
        ("3\u00a0m 汉字 é ± 🚢", "3\u00a0m 汉字 é ± 🚢"),
        ("x" * (MAX_CHARS + 1_234), "x" * MAX_CHARS + " ... (1,234 more characters)"),
    ],
)
def test_escapes_tell_which_character_it_was(text: str, shown: str) -> None:
    assert inert(text) == shown


def printed(*objects: object, style: str = "") -> str:
    """What a console prints on a terminal that knows no colours."""
    sink = io.StringIO()
    InertConsole(file=sink, width=100, force_terminal=True, color_system=None).print(*objects, style=style)
    return sink.getvalue()


@pytest.mark.parametrize("text", STRINGS.values(), ids=STRINGS)
def test_console_prints_strings_as_one_line_without_markup(text: str) -> None:
    assert printed(text) == f"{inert(text)}\n"
    assert printed(f"[bold]{text}", style="red") == inert(f"[bold]{text}") + "\n"


@pytest.mark.parametrize("text", STRINGS.values(), ids=STRINGS)
def test_tables_and_texts_are_inert(text: str) -> None:
    table = Table(text, title=text, caption=text)
    table.add_row(text, style="bold")
    assert not problem(0, printed(table), "")
    assert not problem(0, printed(Text(text, "bold")), "")
    cell = Table()
    cell.add_row("[/b][red]x\x1b[31m")
    assert "[/b][red]x\\x1b[31m" in printed(cell)


def test_streams_are_inert_and_restored(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout, sys.stderr
    with inert_streams():
        sys.stdout.write("out \x1b[31m\nsecond\n")
        sys.stderr.writelines(["err \x9b31m\n", "\u202e"])
    assert (sys.stdout, sys.stderr) == before
    captured = capsys.readouterr()
    assert captured.out == "out \\x1b[31m\nsecond\n"
    assert captured.err == "err \\x9b31m\n\\u202e"


def test_streams_of_other_encodings_show_escapes() -> None:
    sink = io.BytesIO()
    stream = InertStream(io.TextIOWrapper(sink, encoding="ascii"))
    stream.write("± 汉\n")
    stream.flush()
    assert sink.getvalue() == b"\\xb1 \\u6c49\n"


def test_output_after_the_reader_has_gone_is_discarded() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe:
        stream = InertStream(pipe)
        for _ in range(3):
            stream.write("x" * 100_000)
            stream.flush()
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe:
        console = InertConsole(file=pipe)
        for _ in range(3):
            console.print("x" * 100_000)


def test_log_messages_are_one_line() -> None:
    record = logging.LogRecord("x", logging.WARNING, "", 0, "first\n%s", ("\x1b[31m",), None)
    assert LineFormatter().format(record) == "first\\n\\x1b[31m"


@pytest.mark.parametrize("text", NAMES.values(), ids=NAMES)
@pytest.mark.parametrize("arguments", [["report", "{}"], ["top", "{}.d"], ["{}"], ["doctor", "{}"], ["score", "{}"]])
def test_hostile_arguments_are_errors(arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main([argument.replace("{}", text) for argument in arguments])
    except SystemExit as stopped:
        code = int(str(stopped.code))
    captured = capsys.readouterr()
    assert not problem(code, captured.out, captured.err)
    assert code in ((0, 1, 2) if text.startswith("--help") else (1, 2))


def test_the_code_has_no_other_console_and_no_markup() -> None:
    border = TOP / "geovlm_ray" / "report" / "terminal.py"
    files = [path for folder in CODE for path in folder.rglob("*.py") if path != border]
    found = [f"{path}: {call}" for path in files for call in _calls(path)]
    assert not found


def _calls(path: Path) -> list[str]:
    """Calls that make a console of Rich, or texts from markup."""
    calls = [ast.unparse(node) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    return [c for c in calls if c.startswith("Console(") or "from_markup(" in c or "markup=True" in c]


def test_forced_colour_shows_no_live_display_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    sink = io.StringIO()
    console = InertConsole(file=sink)
    with Progress(console) as progress:
        for n in range(3):
            progress.show(n, "records read")
    console.print("done", style="red")
    assert "records" not in sink.getvalue()
    assert "\x1b[31mdone" in sink.getvalue()
