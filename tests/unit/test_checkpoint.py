"""Checkpoints are complete or absent, on the local disk and on the mirror."""

from __future__ import annotations

import json
import resource
import threading
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFile, MemoryFileSystem

from geovlm_ray.core.errors import ConfigError, DataError, RunError
from geovlm_ray.core.files import write_atomically
from geovlm_ray.training.checkpoint import STATE_FILE, CheckpointFolder
from geovlm_ray.training.checkpoint_mirror import CheckpointMirror


class State:
    """Fake learner state, written by a thread once ``may_write`` is set."""

    def __init__(self) -> None:
        self.may_write = threading.Event()
        self.may_write.set()
        self.error: OSError | None = None
        self._thread = threading.Thread()

    def save(self, folder: Path) -> None:
        self._thread = threading.Thread(target=self._write, args=(folder,), daemon=True)
        self._thread.start()

    def saved(self) -> bool:
        if self.error:
            self._thread.join()
            raise self.error
        return not self._thread.is_alive()

    def _write(self, folder: Path) -> None:
        self.may_write.wait()
        if not folder.exists():
            # A restarted run removed what this one had begun.
            self.error = FileNotFoundError(folder)
            return
        (folder / "model.safetensors").write_bytes(bytes(range(200)))
        (folder / "part").mkdir()
        (folder / "part" / "learner.pt").write_bytes(b"state of " + folder.name.encode())


def save_checkpoints(checkpoints: CheckpointFolder, *rewards: float) -> CheckpointFolder:
    """Save one checkpoint per reward, with steps counted from 1."""
    for step, reward in enumerate(rewards, 1):
        checkpoints.save(step, State(), {"reward/mean": reward})
    checkpoints.finish()
    return checkpoints


def checkpoint_steps(folder: Path) -> list[int]:
    """Steps of the checkpoints in a folder."""
    return sorted(int(path.name.removeprefix("step-")) for path in folder.glob("step-*"))


def corruptions(folder: Path) -> list[tuple[Path, bytes | None]]:
    """Each checkpoint file with a bit of its first, middle or last byte flipped, truncated, emptied, or deleted."""
    cases: list[tuple[Path, bytes | None]] = []
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        content = file.read_bytes()
        for at in {0, len(content) // 2, len(content) - 1}:
            cases.append((file, content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]))
        cases += [(file, content[:-1]), (file, b""), (file, None)]
    return cases


def test_protected_and_best_checkpoints_are_kept(tmp_path: Path) -> None:
    checkpoints = CheckpointFolder(tmp_path, keep=1)
    checkpoints.protect(1)
    save_checkpoints(checkpoints, 0, 0, 0)
    assert checkpoint_steps(tmp_path) == [1, 3]
    checkpoints.record_scores(1, {"vqa": 0.5, "overall": 0.6})
    for step, vqa, overall in ((4, 0.4, 0.7), (5, 0.3, 0.2), (6, 0.1, 0.1)):
        checkpoints.protect(step)
        checkpoints.save(step, State(), {})
        checkpoints.finish()
        checkpoints.record_scores(step, {"vqa": vqa, "overall": overall})
    save_checkpoints(checkpoints, *[0.0])
    assert checkpoint_steps(tmp_path) == [1, 4, 6]
    best = json.loads((tmp_path / "best.json").read_text())
    assert best == {"vqa": {"step": 1, "value": 0.5}, "overall": {"step": 4, "value": 0.7}}


def test_scores_of_repeated_steps_are_dropped(tmp_path: Path) -> None:
    checkpoints = save_checkpoints(CheckpointFolder(tmp_path, keep=3), 0, 0, 0)
    checkpoints.record_scores(3, {"vqa": 0.9})
    checkpoints.restore_scores({1: {"vqa": 0.2}, 2: {"vqa": 0.3}, 7: {"vqa": 0.8}})
    assert json.loads((tmp_path / "best.json").read_text()) == {"vqa": {"step": 2, "value": 0.3}}


def test_newest_checkpoints_are_kept_and_partial_ones_ignored(tmp_path: Path) -> None:
    checkpoints = CheckpointFolder(tmp_path, keep=2)
    assert checkpoints.latest() is None
    save_checkpoints(checkpoints, 0, 0, 0)
    (tmp_path / ".partial-4").mkdir()
    assert checkpoints.latest() == (3, tmp_path / "step-000003")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000002", "step-000003"]


def test_best_checkpoint_is_kept_in_addition_to_the_newest(tmp_path: Path) -> None:
    save_checkpoints(CheckpointFolder(tmp_path, keep=1, best="reward/mean"), 0.1, 0.9, 0.3, 0.5)
    assert checkpoint_steps(tmp_path) == [2, 4]
    save_checkpoints(CheckpointFolder(tmp_path / "equal", keep=1, best="reward/mean"), 0.9, 0.9, 0.3)
    assert checkpoint_steps(tmp_path / "equal") == [2, 3]


def test_step_without_the_metric_is_not_best_and_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoints = CheckpointFolder(tmp_path, keep=1, best="task/vqa/reward")
    for step, metrics in enumerate(({"task/vqa/reward": 0.5}, {"reward/mean": 0.9}, {"reward/mean": 0.1}), 1):
        checkpoints.save(step, State(), metrics)
    checkpoints.finish()
    assert checkpoint_steps(tmp_path) == [1, 3]
    assert "checkpoint.best: step 2 has no metric task/vqa/reward, only reward/mean" in caplog.text


def test_file_named_like_a_checkpoint_is_ignored(tmp_path: Path) -> None:
    checkpoints = save_checkpoints(CheckpointFolder(tmp_path, keep=2), 0.1)
    (tmp_path / "step-000010").write_text("mine")
    assert checkpoints.latest() == (1, tmp_path / "step-000001")


def test_checkpoint_is_written_in_the_background_and_appears_once_complete(tmp_path: Path) -> None:
    checkpoints, state = CheckpointFolder(tmp_path, keep=2), State()
    state.may_write.clear()
    checkpoints.save(1, state, {})
    assert checkpoint_steps(tmp_path) == []
    state.may_write.set()
    checkpoints.finish()
    assert checkpoints.latest() == (1, tmp_path / "step-000001")


def test_stale_writer_does_not_overwrite_checkpoints_of_the_restarted_run(tmp_path: Path) -> None:
    first_run, late_writer = CheckpointFolder(tmp_path, keep=2), State()
    late_writer.may_write.clear()
    first_run.save(1, late_writer, {})
    restarted = CheckpointFolder(tmp_path, keep=2)
    assert restarted.latest() is None
    save_checkpoints(restarted, 0)
    late_writer.may_write.set()
    first_run.abandon()
    assert restarted.latest() == (1, tmp_path / "step-000001")


def test_corrupted_checkpoint_is_skipped_for_the_previous_one(tmp_path: Path) -> None:
    found = save_checkpoints(CheckpointFolder(tmp_path, keep=3), 0, 0)
    newest = tmp_path / "step-000002"
    assert found.latest() == (2, newest)
    cases = corruptions(newest)
    assert len(cases) > 15
    for file, content in cases:
        before = file.read_bytes()
        file.unlink() if content is None else file.write_bytes(content)
        assert found.latest() == (1, tmp_path / "step-000001"), (file, content)
        file.write_bytes(before)
    assert found.latest() == (2, newest)


def test_run_fails_if_every_checkpoint_is_corrupted(tmp_path: Path) -> None:
    found = save_checkpoints(CheckpointFolder(tmp_path, keep=3), 0, 0)
    for step in (1, 2):
        (tmp_path / f"step-00000{step}" / "model.safetensors").write_bytes(b"")
    with pytest.raises(RunError, match=r"no checkpoint .* is intact .*step-000001/model\.safetensors"):
        found.latest()


def test_write_error_names_the_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match="file/step-000001 could not be written"):
        save_checkpoints(CheckpointFolder(tmp_path / "file", keep=1), 0)


def test_full_disk_is_reported_and_keeps_the_previous_checkpoint(tmp_path: Path) -> None:
    checkpoints, state = save_checkpoints(CheckpointFolder(tmp_path, keep=1), 0), State()
    state.error = OSError(28, "No space left on device")
    checkpoints.save(2, state, {})
    with pytest.raises(RunError, match=r"step-000002 could not be written: .*No space left"):
        checkpoints.finish()
    assert [path.name for path in tmp_path.iterdir()] == ["step-000001"]
    assert checkpoints.latest() == (1, tmp_path / "step-000001")


def mirror(folder: Path) -> CheckpointMirror:
    return CheckpointMirror(f"file://{folder}", STATE_FILE)


def test_mirror_equals_the_local_checkpoints_and_another_machine_resumes_from_it(tmp_path: Path) -> None:
    remote = tmp_path / "remote"
    save_checkpoints(CheckpointFolder(tmp_path / "local", 1, "reward/mean", mirror(remote)), 0.5, 0.1, 0.2)
    assert checkpoint_steps(remote) == checkpoint_steps(tmp_path / "local") == [1, 3]
    other_machine = CheckpointFolder(tmp_path / "other", 1, "reward/mean", mirror(remote))
    assert other_machine.latest() == (3, tmp_path / "other" / "step-000003")
    copies = [tmp_path / "local" / "step-000003", tmp_path / "other" / "step-000003"]
    first, second = ({p.relative_to(c): p.read_bytes() for p in c.rglob("*") if p.is_file()} for c in copies)
    assert first == second
    assert len(first) == 3


def test_unrelated_files_in_the_mirror_are_kept(tmp_path: Path) -> None:
    remote = tmp_path / "remote"
    save_checkpoints(CheckpointFolder(tmp_path / "local", 1, "reward/mean", mirror(remote)), 0.9, 0.1, 0.2)
    (remote / "notes").mkdir()
    (remote / "notes" / STATE_FILE).write_text("someone's")
    other_machine = CheckpointFolder(tmp_path / "other", 1, "reward/mean", mirror(remote))
    assert other_machine.latest() == (3, tmp_path / "other" / "step-000003")
    other_machine.save(4, State(), {"reward/mean": 0.3})
    other_machine.finish()
    assert checkpoint_steps(remote) == [1, 4]
    assert (remote / "notes" / STATE_FILE).exists()


def test_corrupted_mirror_copy_is_skipped_for_the_previous_one(tmp_path: Path) -> None:
    remote = tmp_path / "remote"
    save_checkpoints(CheckpointFolder(tmp_path / "local", 2, None, mirror(remote)), 0, 0)
    for number, (file, content) in enumerate(corruptions(remote / "step-000002")):
        before = file.read_bytes()
        file.unlink() if content is None else file.write_bytes(content)
        other = tmp_path / f"other-{number}"
        assert CheckpointFolder(other, 2, None, mirror(remote)).latest() == (1, other / "step-000001"), (file, content)
        file.write_bytes(before)


@pytest.mark.parametrize("key", ["../../../stolen", "a/../../../stolen", "{outside}/stolen"])
def test_a_key_of_the_mirror_that_leads_out_of_the_checkpoint_is_refused(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MemoryFileSystem, "store", {})
    remote = CheckpointMirror("memory://mirror", STATE_FILE)
    save_checkpoints(CheckpointFolder(tmp_path / "local", 1, None, remote), 0)
    path = f"/mirror/step-000001/{key.format(outside=tmp_path)}"
    MemoryFileSystem.store[path] = MemoryFile(None, path, b"stolen")
    checkpoints = CheckpointFolder(tmp_path / "a" / "b" / "c", 1, None, remote)
    with pytest.raises(RunError, match=r"checkpoint memory://mirror/step-000001: .*leads out of its folder"):
        checkpoints.latest()
    assert not [*tmp_path.rglob("stolen")]


def test_newer_local_checkpoint_is_preferred_to_the_mirror(tmp_path: Path) -> None:
    remote, local = tmp_path / "remote", tmp_path / "local"
    save_checkpoints(CheckpointFolder(local, 2, None, mirror(remote)), 0)
    save_checkpoints(CheckpointFolder(local, 2), 0, 0)
    assert CheckpointFolder(local, 2, None, mirror(remote)).latest() == (2, local / "step-000002")


def test_mirror_write_error_is_raised_and_the_local_checkpoint_kept(tmp_path: Path) -> None:
    (tmp_path / "remote").write_text("in the way")
    checkpoints = CheckpointFolder(tmp_path / "local", 1, None, mirror(tmp_path / "remote"))
    with pytest.raises(RunError, match=r"checkpoint file://.*remote/step-000001: "):
        save_checkpoints(checkpoints, 0)
    assert checkpoint_steps(tmp_path / "local") == [1]


def test_failed_copy_is_removed_from_the_mirror(tmp_path: Path) -> None:
    blocked = tmp_path / "remote" / "step-000001" / "part"
    blocked.parent.mkdir(parents=True)
    blocked.write_text("where a folder of the checkpoint belongs")
    checkpoints = CheckpointFolder(tmp_path / "local", 1, None, mirror(tmp_path / "remote"))
    with pytest.raises(RunError, match=r"checkpoint file://.*remote/step-000001: "):
        save_checkpoints(checkpoints, 0)
    assert not blocked.parent.exists()


def test_file_that_cannot_be_written_keeps_its_content_and_leaves_nothing_partial(tmp_path: Path) -> None:
    write_atomically(tmp_path / "file", "before")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(DataError, match="file cannot be written: File too large"):
            write_atomically(tmp_path / "file", "x" * 2000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "before"


def test_unsupported_url_scheme_is_rejected() -> None:
    with pytest.raises(ConfigError, match=r"checkpoint.url: expected a URL that fsspec supports, found 'nowhere://x'"):
        CheckpointMirror("nowhere://x", STATE_FILE)
