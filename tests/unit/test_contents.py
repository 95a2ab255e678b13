"""What a run reads is known by its content: what has changed is named with its file, and nothing else is a change."""

from __future__ import annotations

import json
import os
import re
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from geovlm_ray.core import contents
from geovlm_ray.core.contents import AcceptedChange, ContentRecord, python_files
from geovlm_ray.core.errors import DataError, RunError
from geovlm_ray.data.parquet import RecordTable, open_datasets
from geovlm_ray.data.quarantine import QuarantineEntry, write_quarantine
from geovlm_ray.evaluation.contents import dataset_files, run_inputs
from geovlm_ray.tasks import TASKS
from tests.unit.datasets import write_dataset, write_image
from tests.unit.resuming import TASKS_OF_RUN, SmallRun, vqa, write_files

DIGEST = "xxh3:[0-9a-f]{16}"


def record(run: SmallRun, accept: bool = False, step: int = 0) -> AcceptedChange | None:
    """Compare what the run reads with its record, which is written."""
    config = run.config()
    contents = ContentRecord(run.folder / "contents.json")
    inputs = run_inputs(config, TASKS_OF_RUN, Path("model"), config.reward)
    change = contents.update(inputs, accept=accept, step=step, description="run directory", remedy="choose another")
    contents.write()
    return change


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SmallRun:
    """A run whose contents are recorded."""
    small = SmallRun.create(tmp_path, monkeypatch)
    record(small)
    return small


def quarantine(folder: Path) -> None:
    with write_quarantine(folder) as add:
        add([QuarantineEntry("validate", "blurred", "source.jsonl", 1, shard="part-00000.parquet", row=0)])


def writes(name: str, text: str) -> Callable[[Path], None]:
    return lambda folder: write_files(folder, {name: text})


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "shards": (
        lambda folder: write_dataset(folder / "data", [*map(vqa, range(16)), vqa(0, "no", "test")], shards=2),
        rf"data data/part-00000\.parquet: expected {DIGEST}, found {DIGEST}; data data/part-00001\.parquet: expected",
    ),
    "missing shard": (
        lambda folder: (folder / "data" / "part-00001.parquet").unlink(),
        rf"data data/part-00001\.parquet: expected {DIGEST}, found nothing",
    ),
    "new quarantine": (
        lambda folder: quarantine(folder / "data"),
        rf"data data/quarantine\.parquet: expected nothing, found {DIGEST}",
    ),
    "card": (writes("data/dataset.json", "{}"), rf"data data/dataset\.json: expected {DIGEST}, found {DIGEST}"),
    "reward": (writes("reward/ships.py", "import helper as h"), r"reward reward/ships\.py:score reward/ships\.py: "),
    "module beside the reward": (writes("reward/helper.py", "LIMIT = 2"), r"reward \S+ reward/helper\.py: expected"),
    "new module": (writes("reward/new.py", ""), rf"reward \S+ reward/new\.py: expected nothing, found {DIGEST}"),
    "package": (writes("reward/fleet/size.py", "LARGE = 3"), rf"reward \S+ reward/fleet/size\.py: expected {DIGEST}"),
    "weights": (
        writes("model/model.safetensors", "Weights"),
        rf"model model/model\.safetensors: expected {DIGEST}, found {DIGEST}",
    ),
    "tokenizer": (writes("model/tokenizer.json", "{}"), rf"model model/tokenizer\.json: expected {DIGEST}, found"),
    "chat template": (
        writes("model/chat_template.jinja", "{{ messages }}"),
        rf"model model/chat_template\.jinja: expected nothing, found {DIGEST}",
    ),
    "plugin": (
        writes("plugin/plugin.py", "import this"),
        rf"plugin plugin/plugin\.py plugin/plugin\.py: expected {DIGEST}, found {DIGEST}",
    ),
    "module in a folder without __init__.py": (
        writes("reward/helpers/iou.py", ""),
        rf"reward \S+ reward/helpers/iou\.py: expected nothing, found {DIGEST}",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_change_is_refused_with_kind_file_and_digests_until_it_is_accepted(name: str, run: SmallRun) -> None:
    change, message = CHANGES[name]
    change(run.folder)
    with pytest.raises(
        RunError, match=rf"^run directory {run.folder} was begun with other content: {message}"
    ) as error:
        record(run)
    assert str(error.value).endswith(
        "; restore it, choose another, or continue with --accept-changes, which is recorded in contents.json"
    )
    accepted = record(run, accept=True, step=7)
    assert accepted is not None
    assert re.search(rf"^\S+, after step 7: {message}", accepted.text)
    assert record(run) is None
    assert ContentRecord(run.folder / "contents.json").changes == [accepted]


def test_all_changes_are_in_one_error_up_to_a_limit(run: SmallRun) -> None:
    for change, _ in CHANGES.values():
        change(run.folder)
    write_files(run.folder, {f"model/{k:02}config.json": "" for k in range(30)})
    with pytest.raises(RunError) as error:
        record(run)
    text = str(error.value)
    assert all(name in text for name in ("data data/dataset.json", "data data/part-00000", "data data/quarantine"))
    assert "; and " in text
    assert len(text) < 3000


def test_other_version_and_other_definition_of_a_task_are_refused(
    run: SmallRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TASKS, "vqa", replace(TASKS["vqa"], instruction="Answer yes.", default_reward="jaccard"))
    monkeypatch.setattr("geovlm_ray.evaluation.contents.__version__", "7.0")
    with pytest.raises(
        RunError, match=r"geovlm_ray version: expected .*, found 7\.0; .*instruction: .*found Answer yes"
    ):
        record(run)


def test_unchanged_files_may_be_touched_moved_and_joined_by_files_that_are_not_read(run: SmallRun) -> None:
    for file in (run.folder / "model").iterdir():
        os.utime(file)
    others = {"model/README.md": "Other", "model/.git/config.json": "", "data/notes.txt": "", "reward/.git/a.py": ""}
    write_files(run.folder, others)
    (run.folder / "data").rename(run.folder / "moved")
    run.data = "moved"
    assert record(run) is None


def test_only_files_with_another_size_time_or_inode_are_read_again(run: SmallRun) -> None:
    weights = run.folder / "model" / "model.safetensors"
    os.utime(weights, (time.time() - 100,) * 2)
    record(run)
    contents = json.loads((run.folder / "contents.json").read_text())
    contents["cache"][str(weights)][1] = "remembered"
    (run.folder / "contents.json").write_text(json.dumps(contents))
    with pytest.raises(RunError, match=r"model\.safetensors: expected xxh3:.*, found remembered"):
        record(run)
    status = weights.stat()
    os.utime(weights, (time.time() - 100,) * 2)
    assert record(run) is None
    content = weights.read_text()
    weights.write_text(content.upper())
    os.utime(weights, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(RunError, match=r"model\.safetensors: expected xxh3"):
        record(run)


def test_images_of_a_source_count_by_name(tmp_path: Path) -> None:
    write_files(tmp_path, {"labels.csv": "a", ".cache/x.csv": "b"})
    write_image(tmp_path / "images" / "a.png", 0)
    contents = ContentRecord(tmp_path / "contents.json")
    first = contents.measure({"data": dataset_files(tmp_path)})["data"]
    assert set(first) == {"labels.csv", "names of images"}
    write_image(tmp_path / "images" / "a.png", 1)
    assert contents.measure({"data": dataset_files(tmp_path)})["data"] == first
    write_image(tmp_path / "images" / "b.png", 1)
    assert contents.measure({"data": dataset_files(tmp_path)})["data"].items() - first.items()


def test_names_need_not_be_utf8(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"\xff.csv")).write_text("a")
    record = ContentRecord(tmp_path / "contents.json")
    record.contents.update(record.measure({"data": dataset_files(tmp_path)}))
    record.write()
    assert list(ContentRecord(record.file).contents["data"]) == ["\\udcff.csv", "names of images"]


def test_records_that_do_not_fit_on_the_temporary_disk_are_reported(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path, [vqa(k) for k in range(100)])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(DataError, match=rf"^{tempfile.gettempdir()} cannot be written: .*File too large"):
            RecordTable(open_datasets(folder))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_all_modules_below_the_folder_of_a_file_count(tmp_path: Path) -> None:
    wanted = ["a.py", "b.py", "c/d.py", "e/__init__.py", "e/f/g.py"]
    others = [".git/h.py", "env/pyvenv.cfg", "env/lib/i.py", "node_modules/j.py", "__pycache__/k.py", "l.txt"]
    write_files(tmp_path, dict.fromkeys([*wanted, *others], ""))
    (tmp_path / "e" / "loop").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "pipe.py")
    assert list(python_files(tmp_path / "a.py")) == wanted


@pytest.mark.parametrize("limit", ["MAX_MODULES", "MAX_MODULE_FOLDERS"])
def test_modules_above_a_limit_are_left_out_with_a_warning(
    limit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(contents, limit, 1)
    write_files(tmp_path, {"a.py": "", "b/c.py": "", "b/d.py": "", "e/f.py": ""})
    assert list(python_files(tmp_path / "a.py")) == ["a.py", "b/c.py", "b/d.py"]
    assert f"{tmp_path / 'a.py'} has more than " in caplog.text
    assert f"changes in those from {tmp_path / 'e'} on are not noticed" in caplog.text


def test_a_pipe_among_the_data_is_an_error(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet: expected a file, found a pipe"):
        ContentRecord(tmp_path / "new.json").measure({"data": dataset_files(tmp_path, converted=True)})


def test_unreadable_files_are_reported(tmp_path: Path) -> None:
    (tmp_path / "contents.json").write_text('{"changes": 3}')
    with pytest.raises(DataError, match=r"contents\.json: changes: .*found 3"):
        ContentRecord(tmp_path / "contents.json")
    with pytest.raises(DataError, match=r"gone\.parquet: expected a readable file, found: No such file"):
        ContentRecord(tmp_path / "new.json").measure({"data": {"gone.parquet": tmp_path / "gone.parquet"}})
