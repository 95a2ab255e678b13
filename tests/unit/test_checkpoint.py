"""Checkpoints: whole or not there, on this disk and on its mirror."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from geovlm_ray.core.errors import ConfigError, RunError
from geovlm_ray.training.checkpoint import STATE_FILE, CheckpointFolder
from geovlm_ray.training.checkpoint_mirror import CheckpointMirror


class State:
    """Three files, written in another thread once it may go on."""

    def __init__(self) -> None:
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.problem: OSError | None = None
        self._thread = threading.Thread()

    def save(self, folder: Path) -> None:
        self._thread = threading.Thread(target=self._write, args=(folder,), daemon=True)
        self._thread.start()

    def saved(self) -> bool:
        if self.problem:
            raise self.problem
        return not self._thread.is_alive()

    def _write(self, folder: Path) -> None:
        self.may_go_on.wait()
        (folder / "model.safetensors").write_bytes(bytes(range(200)))
        (folder / "part").mkdir()
        (folder / "part" / "learner.pt").write_bytes(b"state of " + folder.name.encode())


def saved(checkpoints: CheckpointFolder, *rewards: float) -> CheckpointFolder:
    """Checkpoints of the steps from 1 on with these rewards."""
    for step, reward in enumerate(rewards, 1):
        checkpoints.save(step, State(), {"reward/mean": reward})
    checkpoints.finish()
    return checkpoints


def names(folder: Path) -> list[int]:
    """Steps of the checkpoints in a folder."""
    return sorted(int(path.name.removeprefix("step-")) for path in folder.glob("step-*"))


def every_damage(folder: Path) -> list[tuple[Path, bytes | None]]:
    """Each file of a checkpoint without its first, middle or last byte's lowest bit, cut short, emptied, or gone."""
    damages: list[tuple[Path, bytes | None]] = []
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        content = file.read_bytes()
        for at in {0, len(content) // 2, len(content) - 1}:
            damages.append((file, content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]))
        damages += [(file, content[:-1]), (file, b""), (file, None)]
    return damages


def test_checkpoints_that_an_evaluation_waits_for_or_calls_the_best_are_kept(tmp_path: Path) -> None:
    checkpoints = CheckpointFolder(tmp_path, keep=1)
    checkpoints.protect(1)
    saved(checkpoints, 0, 0, 0)
    assert names(tmp_path) == [1, 3]
    checkpoints.record_scores(1, {"vqa": 0.5, "overall": 0.6})
    for step, vqa, overall in ((4, 0.4, 0.7), (5, 0.3, 0.2), (6, 0.1, 0.1)):
        checkpoints.protect(step)
        checkpoints.save(step, State(), {})
        checkpoints.finish()
        checkpoints.record_scores(step, {"vqa": vqa, "overall": overall})
    saved(checkpoints, *[0.0])
    assert names(tmp_path) == [1, 4, 6]
    best = json.loads((tmp_path / "best.json").read_text())
    assert best == {"vqa": {"step": 1, "value": 0.5}, "overall": {"step": 4, "value": 0.7}}


def test_steps_that_are_made_again_are_no_longer_the_best(tmp_path: Path) -> None:
    checkpoints = saved(CheckpointFolder(tmp_path, keep=3), 0, 0, 0)
    checkpoints.record_scores(3, {"vqa": 0.9})
    checkpoints.restore_scores({1: {"vqa": 0.2}, 2: {"vqa": 0.3}, 7: {"vqa": 0.8}})
    assert json.loads((tmp_path / "best.json").read_text()) == {"vqa": {"step": 2, "value": 0.3}}


def test_newest_checkpoints_are_kept_and_half_written_ones_ignored(tmp_path: Path) -> None:
    checkpoints = CheckpointFolder(tmp_path, keep=2)
    assert checkpoints.latest() is None
    saved(checkpoints, 0, 0, 0)
    (tmp_path / ".partial-4").mkdir()
    assert checkpoints.latest() == (3, tmp_path / "step-000003")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000002", "step-000003"]


def test_the_best_checkpoint_is_kept_beside_the_newest(tmp_path: Path) -> None:
    saved(CheckpointFolder(tmp_path, keep=1, best="reward/mean"), 0.1, 0.9, 0.3, 0.5)
    assert names(tmp_path) == [2, 4]
    saved(CheckpointFolder(tmp_path / "equal", keep=1, best="reward/mean"), 0.9, 0.9, 0.3)
    assert names(tmp_path / "equal") == [2, 3]


def test_a_step_without_the_metric_is_not_the_best_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = CheckpointFolder(tmp_path, keep=1, best="task/vqa/reward")
    for step, metrics in enumerate(({"task/vqa/reward": 0.5}, {"reward/mean": 0.9}, {"reward/mean": 0.1}), 1):
        checkpoints.save(step, State(), metrics)
    checkpoints.finish()
    assert names(tmp_path) == [1, 3]
    assert "checkpoint.best: step 2 has no metric task/vqa/reward, only reward/mean" in caplog.text


def test_a_file_named_like_a_checkpoint_is_none(tmp_path: Path) -> None:
    checkpoints = saved(CheckpointFolder(tmp_path, keep=2), 0.1)
    (tmp_path / "step-000010").write_text("mine")
    assert checkpoints.latest() == (1, tmp_path / "step-000001")


def test_steps_go_on_while_a_checkpoint_is_written_which_is_there_when_it_is_whole(tmp_path: Path) -> None:
    checkpoints, state = CheckpointFolder(tmp_path, keep=2), State()
    state.may_go_on.clear()
    checkpoints.save(1, state, {})
    assert names(tmp_path) == []
    state.may_go_on.set()
    checkpoints.finish()
    assert checkpoints.latest() == (1, tmp_path / "step-000001")


def test_a_writer_that_lives_on_after_its_run_was_started_again_spoils_no_checkpoint(tmp_path: Path) -> None:
    before, late = CheckpointFolder(tmp_path, keep=2), State()
    late.may_go_on.clear()
    before.save(1, late, {})
    again = CheckpointFolder(tmp_path, keep=2)
    assert again.latest() is None
    saved(again, 0)
    late.may_go_on.set()
    before.abandon()
    assert again.latest() == (1, tmp_path / "step-000001")


def test_a_broken_checkpoint_is_passed_over_for_the_one_before_it_and_never_resumed_from(tmp_path: Path) -> None:
    found = saved(CheckpointFolder(tmp_path, keep=3), 0, 0)
    newest = tmp_path / "step-000002"
    assert found.latest() == (2, newest)
    damages = every_damage(newest)
    assert len(damages) > 15
    for file, content in damages:
        before = file.read_bytes()
        file.unlink() if content is None else file.write_bytes(content)
        assert found.latest() == (1, tmp_path / "step-000001"), (file, content)
        file.write_bytes(before)
    assert found.latest() == (2, newest)


def test_where_all_checkpoints_are_broken_the_run_does_not_start_anew_by_itself(tmp_path: Path) -> None:
    found = saved(CheckpointFolder(tmp_path, keep=3), 0, 0)
    for step in (1, 2):
        (tmp_path / f"step-00000{step}" / "model.safetensors").write_bytes(b"")
    with pytest.raises(RunError, match=r"no checkpoint .* is intact .*step-000001/model\.safetensors"):
        found.latest()


def test_a_disk_that_refuses_a_checkpoint_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match="file/step-000001 could not be written"):
        saved(CheckpointFolder(tmp_path / "file", keep=1), 0)


def test_a_disk_that_fills_while_a_checkpoint_is_written_is_named_and_leaves_the_one_before_it(tmp_path: Path) -> None:
    checkpoints, state = saved(CheckpointFolder(tmp_path, keep=1), 0), State()
    state.problem = OSError(28, "No space left on device")
    checkpoints.save(2, state, {})
    with pytest.raises(RunError, match=r"step-000002 could not be written: .*No space left"):
        checkpoints.finish()
    assert checkpoints.latest() == (1, tmp_path / "step-000001")


def mirror(folder: Path) -> CheckpointMirror:
    return CheckpointMirror(f"file://{folder}", STATE_FILE)


def test_a_mirror_holds_the_same_checkpoints_and_another_machine_goes_on_from_them(tmp_path: Path) -> None:
    far = tmp_path / "far"
    saved(CheckpointFolder(tmp_path / "here", 1, "reward/mean", mirror(far)), 0.5, 0.1, 0.2)
    assert names(far) == names(tmp_path / "here") == [1, 3]
    elsewhere = CheckpointFolder(tmp_path / "there", 1, "reward/mean", mirror(far))
    assert elsewhere.latest() == (3, tmp_path / "there" / "step-000003")
    copies = [tmp_path / "here" / "step-000003", tmp_path / "there" / "step-000003"]
    first, second = ({p.relative_to(c): p.read_bytes() for p in c.rglob("*") if p.is_file()} for c in copies)
    assert first == second
    assert len(first) == 3


def test_what_only_the_mirror_has_stays_there(tmp_path: Path) -> None:
    far = tmp_path / "far"
    saved(CheckpointFolder(tmp_path / "here", 1, "reward/mean", mirror(far)), 0.9, 0.1, 0.2)
    (far / "notes").mkdir()
    (far / "notes" / STATE_FILE).write_text("someone's")
    elsewhere = CheckpointFolder(tmp_path / "there", 1, "reward/mean", mirror(far))
    assert elsewhere.latest() == (3, tmp_path / "there" / "step-000003")
    elsewhere.save(4, State(), {"reward/mean": 0.3})
    elsewhere.finish()
    assert names(far) == [1, 4]
    assert (far / "notes" / STATE_FILE).exists()


def test_a_broken_copy_is_passed_over_for_the_one_before_it(tmp_path: Path) -> None:
    far = tmp_path / "far"
    saved(CheckpointFolder(tmp_path / "here", 2, None, mirror(far)), 0, 0)
    for number, (file, content) in enumerate(every_damage(far / "step-000002")):
        before = file.read_bytes()
        file.unlink() if content is None else file.write_bytes(content)
        there = tmp_path / f"there-{number}"
        assert CheckpointFolder(there, 2, None, mirror(far)).latest() == (1, there / "step-000001"), (file, content)
        file.write_bytes(before)


def test_what_lies_here_is_taken_before_an_older_copy(tmp_path: Path) -> None:
    far, here = tmp_path / "far", tmp_path / "here"
    saved(CheckpointFolder(here, 2, None, mirror(far)), 0)
    saved(CheckpointFolder(here, 2), 0, 0)
    assert CheckpointFolder(here, 2, None, mirror(far)).latest() == (2, here / "step-000002")


def test_a_mirror_that_refuses_a_copy_is_named_and_the_checkpoint_stays_here(tmp_path: Path) -> None:
    (tmp_path / "far").write_text("in the way")
    checkpoints = CheckpointFolder(tmp_path / "here", 1, None, mirror(tmp_path / "far"))
    with pytest.raises(RunError, match=r"checkpoint file://.*far/step-000001: "):
        saved(checkpoints, 0)
    assert names(tmp_path / "here") == [1]


def test_a_url_that_nothing_is_known_of_is_named() -> None:
    with pytest.raises(ConfigError, match=r"checkpoint.url: expected a URL that fsspec supports, found 'nowhere://x'"):
        CheckpointMirror("nowhere://x", STATE_FILE)
