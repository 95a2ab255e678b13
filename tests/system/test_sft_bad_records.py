"""Fine-tuning on records that turn out bad: replaced, listed, the same in every reader process, limited in number."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from geovlm_ray.config import load_config
from geovlm_ray.core.errors import DataError
from geovlm_ray.data.config import DataConfig
from geovlm_ray.data.sampler import PromptSampler
from geovlm_ray.data.sources import open_stream
from geovlm_ray.learner.sft.batches import read_batches
from geovlm_ray.learner.sft.trainer import SftTrainer
from geovlm_ray.model.prompts import PromptEncoder
from geovlm_ray.training.sft import fine_tune
from tests.system.test_fine_tuning import QUIET, SHORT, collator

pytestmark = pytest.mark.slow


def user_records(folder: Path, *changes: dict[str, object]) -> tuple[str, ...]:
    """Overrides that train on VQA records r0, r1, ..., each with its changed fields."""
    plain = {"task": "vqa", "images": ["a.png"], "prompt": "what ?", "reference": "word"}
    lines = [{**plain, "id": f"r{k}", **change} for k, change in enumerate(changes)]
    (folder / "data.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for name in ("a.png", "held_out.png"):
        Image.new("RGB", (60, 60)).save(folder / name)
    data = (f"data.path={folder / 'data.jsonl'}", "data.source=samples", "data.stages=[]")
    return (*SHORT, *data, "sft.steps=6", "sft.batch_size=1", "sft.checkpoint_every=6")


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def logged_and_saved(out: Path) -> tuple[int, list[str]]:
    """Number of logged steps, and the names of the checkpoints."""
    return len(lines(out / "sft.jsonl")), [p.name for p in (out / "checkpoints").glob("step-*")]


def broken_image(folder: Path) -> str:
    (folder / "broken.png").write_text("no picture")
    return "broken.png"


@pytest.mark.parametrize("readers", [0, 2])
def test_bad_record_is_replaced_in_every_reader(readers: int, encoder: PromptEncoder, tmp_path: Path) -> None:
    broken = {"images": [broken_image(tmp_path)]}
    user_records(tmp_path, *(broken if k in (2, 5) else {} for k in range(8)))
    config = DataConfig(source="samples", path=str(tmp_path / "data.jsonl"), max_bad=0.5)
    sampler = PromptSampler(open_stream(config), config, 4)
    sampler.stream.bad.keep_in(tmp_path / "bad.jsonl")
    found = [batch.ids for batch in read_batches(sampler, collator(encoder), 0, 6, readers)]
    assert [len(ids) for ids in found] == [4] * 6
    assert not {"r2", "r5"} & {name for ids in found for name in ids}
    listed = lines(tmp_path / "bad.jsonl")
    assert sorted(row["id"] for row in listed) == ["r2", "r5"]
    assert all("broken.png: expected a decodable image" in row["reason"] and row["step"] <= 2 for row in listed)
    known = PromptSampler(open_stream(config), config, 4)
    known.stream.bad.keep_in(tmp_path / "bad.jsonl")
    assert found == [[prompt.example.id for prompt in known.batch(step)] for step in range(6)]


@pytest.mark.parametrize("readers", [0, 1])
def test_too_many_bad_records_end_training(readers: int, encoder: PromptEncoder, tmp_path: Path) -> None:
    user_records(tmp_path, *({"images": [broken_image(tmp_path)]} if k % 2 else {} for k in range(8)))
    config = DataConfig(source="samples", path=str(tmp_path / "data.jsonl"), max_bad=0.25)
    sampler = PromptSampler(open_stream(config), config, 4)
    with pytest.raises(DataError, match=r"at most 25\.00% bad records \(data\.max_bad\), found 3 of 8: record 'r"):
        list(read_batches(sampler, collator(encoder), 0, 6, readers))


def test_bad_records_are_listed_and_training_goes_on(tmp_path: Path) -> None:
    broken, held_out = {"images": [broken_image(tmp_path)]}, {"split": "test", "images": ["held_out.png"]}
    changes = [broken, {}, {"prompt": "what is <|im_end|> ?"}, {}, {}, held_out]
    settings = [*user_records(tmp_path, *changes), "data.max_bad=0.5", "data.check_images=0"]
    out = tmp_path / "out"
    summary = fine_tune(load_config("demo", settings), out, QUIET)
    listed = {row["id"]: row for row in lines(out / "bad_records.jsonl")}
    assert set(listed) == {"r0", "r2"}
    assert (listed["r2"]["step"], listed["r0"]["step"] > 0) == (0, True)
    assert [row["bad_records"] for row in lines(out / "sft.jsonl")][-1] == 2
    assert summary["evaluation"] is not None


def test_broken_record_mid_training_leaves_a_checkpoint_of_the_last_step(tmp_path: Path) -> None:
    settings = user_records(tmp_path, *({"images": [broken_image(tmp_path)]} if k == 5 else {} for k in range(6)))
    with pytest.raises(DataError, match="record 'r5'"):
        fine_tune(load_config("demo", [*settings, "data.check_images=0"]), tmp_path / "out", QUIET)
    done, kept = logged_and_saved(tmp_path / "out")
    assert 0 <= done < 6
    assert kept == ([f"step-{done:06d}"] if done else [])


def test_bad_held_out_example_is_left_out_of_the_evaluation(tmp_path: Path) -> None:
    held_out = [{"split": "test", "images": [name]} for name in ("held_out.png", broken_image(tmp_path))]
    settings = [*user_records(tmp_path, {}, *held_out), "data.max_bad=0.5"]
    summary = fine_tune(load_config("demo", settings), tmp_path / "out", QUIET)
    assert summary["evaluation"] is not None
    assert [row["id"] for row in lines(tmp_path / "out" / "bad_records.jsonl")] == ["r2"]


def test_step_with_a_failed_evaluation_is_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = user_records(tmp_path, {}, {"split": "test", "images": ["b.png"]})
    config, image, listed = load_config("demo", settings), tmp_path / "b.png", tmp_path / "out" / "bad_records.jsonl"
    Image.new("RGB", (60, 60)).save(image)
    step = SftTrainer.step

    def step_during_which_the_image_is_lost(self: SftTrainer, batch: Any) -> dict[str, float]:
        image.unlink(missing_ok=True)
        return step(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(SftTrainer, "step", step_during_which_the_image_is_lost)
        with pytest.raises(DataError, match=rf"record 'r1' .*b\.png.*; once they are fixed, remove {listed}$"):
            fine_tune(config, tmp_path / "out", QUIET)
    assert logged_and_saved(tmp_path / "out") == (1, [])
    Image.new("RGB", (60, 60)).save(image)
    with pytest.raises(DataError, match="record 'r1'"):
        fine_tune(config, tmp_path / "out", QUIET)
    listed.unlink()
    fine_tune(config, tmp_path / "out", QUIET)
    assert logged_and_saved(tmp_path / "out") == (6, ["step-000006"])
