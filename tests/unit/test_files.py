"""Reading of files: regular ones of a bounded size, with one error that names the file and what was found."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from geovlm_ray.core import files
from geovlm_ray.core.errors import DataError
from geovlm_ray.core.files import read_object, read_objects, read_text, text_lines, write_atomically

MAKE: dict[str, Callable[[Path], object]] = {
    "a folder": Path.mkdir,
    "a pipe, socket or device": os.mkfifo,
    "none": lambda path: None,
    "a broken link": lambda path: path.symlink_to(path.name),
}


@pytest.mark.parametrize("read", [read_text, read_object, read_objects, lambda path: next(text_lines(path))])
@pytest.mark.parametrize("found", MAKE)
def test_other_than_regular_files_are_rejected(found: str, read: Callable[[Path], object], tmp_path: Path) -> None:
    MAKE[found](tmp_path / "a")
    with pytest.raises(DataError, match=f"^{tmp_path}/a: expected a file, found {found}$"):
        read(tmp_path / "a")


def test_devices_and_dangling_links_are_rejected(tmp_path: Path) -> None:
    for target, found in (("/dev/zero", "a pipe, socket or device"), ("/nowhere", "a broken link")):
        (tmp_path / "a").unlink(missing_ok=True)
        (tmp_path / "a").symlink_to(target)
        with pytest.raises(DataError, match=f"expected a file, found {found}"):
            read_text(tmp_path / "a")


def test_files_and_lines_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_BYTES", 2**20)
    (tmp_path / "a").write_bytes(b'{"a": 1}\n' + b"x" * (2**20 + 1))
    with pytest.raises(DataError, match=f"{tmp_path}/a: expected at most 1 MiB, found more"):
        read_object(tmp_path / "a")
    for read in (read_objects, lambda path: list(text_lines(path))):
        with pytest.raises(DataError, match=f"{tmp_path}/a, line 2: expected at most 1 MiB, found more"):
            read(tmp_path / "a")


@pytest.mark.parametrize("content", ["[" * 100_000, '{"a": ' * 100_000, '{"a": ' + "9" * 5_000 + "}", "", "\0", "nan"])
def test_broken_json_is_an_error(content: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_text(content)
    with pytest.raises(DataError, match=f"^{tmp_path}/a: expected a JSON object, found no JSON"):
        read_object(tmp_path / "a")


def test_lines_have_no_byte_order_mark_and_keep_other_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbffirst\n\ncaf\xe9\x0b\xe2\x80\xa8\n")
    assert list(text_lines(tmp_path / "a")) == ["first\n", "\n", "caf\udce9\x0b\u2028\n"]


def test_lone_surrogates_are_written_as_escapes(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a", '{"name": "caf\udce9"}')
    assert read_object(tmp_path / "a") == {"name": "caf\udce9"}
