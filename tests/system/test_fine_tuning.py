"""Supervised fine-tuning: packing, response loss, optimizer steps, resume, and rejected inputs."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftModel
from PIL import Image
from rich.console import Console
from torch import nn

from geovlm_ray.config import load_config
from geovlm_ray.core.errors import ConfigError, DataError, RunError, UserError
from geovlm_ray.core.schema import Example, Prompt
from geovlm_ray.data.config import DataConfig
from geovlm_ray.data.sampler import PromptSampler, SceneStream
from geovlm_ray.data.scenes import SCENE_TASKS, scene_example
from geovlm_ray.learner.sft.batches import Batch, Encoded, SftCollator, pack_rows, read_batches
from geovlm_ray.learner.sft.config import SftConfig
from geovlm_ray.learner.sft.trainer import SftTrainer
from geovlm_ray.model.config import LoraSettings, ModelConfig
from geovlm_ray.model.loading import load_model, model_folder
from geovlm_ray.model.logprobs import RowLogprobs
from geovlm_ray.model.prompts import EncodedImages, EncodedPrompt, PromptEncoder
from geovlm_ray.model.rows import Completion, GroupRow
from geovlm_ray.training.sft import fine_tune
from tests.saving import save_whole
from tests.unit.plain_forward import plain_logits, plain_logprobs

pytestmark = pytest.mark.slow

QUIET = Console(quiet=True)
LORA = ModelConfig(lora=LoraSettings(rank=4))
NORMS = ("grad_norm", "grad_norm/vision", "grad_norm/language")
SHORT = ("sft.steps=3", "sft.batch_size=4", "sft.eval_every=2", "sft.eval_examples=12", "sft.readers=0")


def policy(config: ModelConfig = ModelConfig()) -> nn.Module:  # noqa: B008 - immutable
    return load_model(config, model_folder("tiny"), torch.device("cpu"), seed=0)


def collator(encoder: PromptEncoder, tokens: int = 4096) -> SftCollator:
    return SftCollator(encoder, "empty", tokens)


def trainer(encoder: PromptEncoder, model: ModelConfig = ModelConfig(), **settings: object) -> SftTrainer:  # noqa: B008
    config = SftConfig(**{"lr": 1e-3, "steps": 10, "warmup_steps": 0, **settings})  # type: ignore[arg-type]
    return SftTrainer(policy(model), encoder.processor, model, config, torch.device("cpu"))


def prompts(n: int, first: int = 0) -> list[Prompt]:
    """Synthetic scenes of all tasks, with one to three images each."""
    return [Prompt(k, scene_example(SCENE_TASKS[k % 12], 5, k)) for k in range(first, first + n)]


def unpacked_loss(model: nn.Module, sequences: Sequence[Encoded]) -> torch.Tensor:
    """Summed cross-entropy of the responses, computed by transformers one sequence at a time."""
    return -torch.stack([plain_logprobs(model, *sequence).sum() for sequence in sequences]).sum()


def row_logprobs(model: nn.Module, row: GroupRow) -> torch.Tensor:
    return RowLogprobs(model, torch.tensor([], dtype=torch.long))(row)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Use one thread: two are slower on a busy machine."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def sequences(encoder: PromptEncoder) -> list[Encoded]:
    """Two encoded examples of every task with their responses."""
    reader = collator(encoder)
    return [(encoder.encode(p.example), Completion(reader.response(p.example))) for p in prompts(24)]


@pytest.mark.parametrize("budget", [10_000, 200])
def test_packed_loss_and_gradients_equal_those_of_separate_sequences(sequences: list[Encoded], budget: int) -> None:
    model = policy()
    expected = unpacked_loss(model, sequences) / 100
    expected.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    assert len({len(prompt.images.grid_thw) for prompt, _ in sequences}) == 3
    found = -torch.stack([row_logprobs(model, row).sum() for row in pack_rows(sequences, budget)]).sum() / 100
    found.backward()
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    for name, parameter in model.named_parameters():
        assert torch.allclose(parameter.grad, gradients[name], rtol=1e-4, atol=1e-5), name


def test_packed_sequences_do_not_attend_to_each_other(sequences: list[Encoded]) -> None:
    model = policy()
    first, second = sequences[0], sequences[3]
    (alone,), (both,) = pack_rows([second], 4096), pack_rows([first, second], 4096)
    assert len(both.groups) == 2
    parts = row_logprobs(model, both).split(both.sample.bincount().tolist())
    behind = next(p for p in parts if len(p) == len(second[1])) if len(first[1]) != len(second[1]) else parts[1]
    assert torch.allclose(row_logprobs(model, alone), behind, atol=1e-5)


def test_loss_covers_the_response_and_its_end_token(encoder: PromptEncoder) -> None:
    reader = collator(encoder)
    (row,) = reader.batch(prompts(3)).rows
    tokenizer = encoder.processor.tokenizer
    responses = tokenizer.decode(row.targets).split("<|im_end|>")
    assert responses[-1] == ""
    assert all(r.startswith("<think>") and r.endswith("</answer>") for r in responses[:-1])
    assert len(row.targets) == sum(len(reader.response(p.example)) for p in prompts(3))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(2, 50), min_size=1, max_size=40), st.integers(50, 120))
def test_packing_keeps_sequences_intact_and_within_the_budget(lengths: list[int], budget: int) -> None:
    no_images = EncodedImages(torch.zeros(0, 4), torch.zeros(0, 3, dtype=torch.long))
    sequences = [(EncodedPrompt(torch.full((n - 1,), i), no_images), Completion([i])) for i, n in enumerate(lengths)]
    rows = pack_rows(sequences, budget)
    sizes = [len(row.input_ids) + len(row.groups) for row in rows]
    assert max(sizes) <= budget
    found = [row.input_ids[g.start : g.end].tolist() for row in rows for g in row.groups]
    assert sorted(found) == sorted([i] * (n - 1) for i, n in enumerate(lengths))
    assert sorted(i for row in rows for i in row.targets.tolist()) == list(range(len(lengths)))
    # First fit leaves at most one row that is half full or less.
    assert sum(2 * size <= budget for size in sizes) <= 1


def test_step_does_not_depend_on_packing(encoder: PromptEncoder) -> None:
    metrics = [trainer(encoder).step(collator(encoder, tokens).batch(prompts(8))) for tokens in (90, 300, 4096)]
    assert len({f["response_tokens"] for f in metrics}) == 1
    assert metrics[0]["loss"] == pytest.approx(metrics[2]["loss"], rel=1e-5)
    assert metrics[0]["grad_norm"] == pytest.approx(metrics[2]["grad_norm"], rel=1e-4)
    assert metrics[1]["loss"] == pytest.approx(metrics[2]["loss"], rel=1e-5)


def test_loss_is_averaged_over_tokens_not_records(encoder: PromptEncoder) -> None:
    model = trainer(encoder)
    parts = [collator(encoder).batch([p]) for p in prompts(4)]
    means = [model.evaluate([part])["eval/loss"] for part in parts]
    tokens = [part.response_tokens for part in parts]
    expected = sum(m * t for m, t in zip(means, tokens, strict=True)) / sum(tokens)
    assert len(set(tokens)) > 1
    assert model.evaluate(parts)["eval/loss"] == pytest.approx(expected, rel=1e-5)
    assert model.step(collator(encoder).batch(prompts(4)))["loss"] == pytest.approx(expected, rel=1e-5)


def test_training_lowers_the_loss_and_raises_the_accuracy(encoder: PromptEncoder) -> None:
    model = trainer(encoder, steps=8)
    batch = collator(encoder).batch(prompts(6))
    before = model.evaluate([batch])
    rows = [model.step(batch) for _ in range(8)]
    after = model.evaluate([batch])
    assert after["eval/loss"] < rows[0]["loss"] - 0.05
    assert after["eval/token_accuracy"] >= before["eval/token_accuracy"]
    assert [row["lr"] for row in rows] == pytest.approx([1e-3 * (1 - k / 7) for k in range(8)])


def test_master_weights_stay_in_fp32_with_bf16_compute(encoder: PromptEncoder) -> None:
    batch = collator(encoder).batch(prompts(6))
    exact, rounded = (trainer(encoder, ModelConfig(dtype=dtype)) for dtype in ("float32", "bfloat16"))  # type: ignore[arg-type]
    assert exact.step(batch)["loss"] == pytest.approx(rounded.step(batch)["loss"], rel=0.02)
    assert {p.dtype for p in rounded.model.parameters()} == {torch.float32}


def test_gradient_checkpointing_keeps_the_gradient(encoder: PromptEncoder) -> None:
    batch = collator(encoder).batch(prompts(3))
    plain, checkpointed = (trainer(encoder, gradient_checkpointing=on).step(batch) for on in (False, True))
    assert plain["grad_norm"] == pytest.approx(checkpointed["grad_norm"], rel=1e-5)


@pytest.mark.parametrize(("model", "optimizer"), [(ModelConfig(), "muon"), (LORA, "adamw"), (LORA, "muon")])
def test_resumed_trainer_equals_uninterrupted_trainer(
    encoder: PromptEncoder, model: ModelConfig, optimizer: str, tmp_path: Path
) -> None:
    batches = [collator(encoder).batch(prompts(3, k)) for k in (0, 3)]
    first = trainer(encoder, model, optimizer=optimizer)
    first.step(batches[0])
    save_whole(first, tmp_path)
    second = trainer(encoder, model, optimizer=optimizer)
    second.load(tmp_path)
    assert second.steps == 1
    assert first.step(batches[1]) == second.step(batches[1])
    assert first.evaluate(batches) == second.evaluate(batches)


def test_non_finite_loss_fails_without_updating_the_weights(encoder: PromptEncoder) -> None:
    model = trainer(encoder)
    (row,) = collator(encoder).batch(prompts(2)).rows
    images = dataclasses.replace(row.images, pixel_values=row.images.pixel_values * float("nan"))
    broken = dataclasses.replace(row, images=images)
    before = {name: p.clone() for name, p in model.model.named_parameters()}
    with pytest.raises(RunError, match=r"step 1: .*loss of nan.*'vqa-7'"):
        model.step(Batch([broken], ["vqa-7"]))
    assert model.steps == 0
    assert all(torch.equal(p, before[name]) for name, p in model.model.named_parameters())


@pytest.mark.parametrize("readers", [0, 2])
def test_batches_are_in_order_from_any_start_step(encoder: PromptEncoder, readers: int) -> None:
    sampler = PromptSampler(SceneStream(3), DataConfig(seed=3), 4)
    expected = [[p.example.id for p in sampler.batch(step)] for step in range(5)]
    assert [b.ids for b in read_batches(sampler, collator(encoder), 0, 5, readers)] == expected
    assert [b.ids for b in read_batches(sampler, collator(encoder), 3, 5, readers)] == expected[3:]


@pytest.mark.parametrize("readers", [0, 1])
def test_reader_errors_are_raised_unchanged(encoder: PromptEncoder, readers: int) -> None:
    sampler = PromptSampler(SceneStream(3), DataConfig(seed=3), 4)
    with pytest.raises(DataError, match=r"^record '[\w-]+': expected at most sft.pack_tokens=30 tokens .* found \d+$"):
        list(read_batches(sampler, collator(encoder, 30), 0, 1, readers))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": ()}, "at least one image"),
        ({"images": ("absent.png",)}, "absent.png"),
        ({"dataset": "mine", "target": ""}, "target"),
        ({"dataset": "mine", "reasoning": "long " * 5000}, "sft.pack_tokens"),
        ({"question": "what is <|image_pad|> ?"}, "placeholder"),
    ],
)
def test_unusable_records_are_reported_by_id(encoder: PromptEncoder, changes: dict[str, object], message: str) -> None:
    example = dataclasses.replace(scene_example("vqa", 0, 0), id="odd one", **changes)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=f"record 'odd one'.*{message}"):
        collator(encoder).batch([Prompt(0, example)])


def test_special_tokens_in_a_target_are_encoded_as_plain_text(encoder: PromptEncoder) -> None:
    record = Example("x", "vqa", ("scene:vqa:0:0:0",), "what ?", "a <|image_pad|> and <|im_end|>", dataset="mine")
    ids = collator(encoder).response(record)
    tokenizer = encoder.processor.tokenizer
    assert tokenizer.convert_tokens_to_ids("<|image_pad|>") not in ids
    assert ids.index(tokenizer.eos_token_id) == len(ids) - 1
    assert tokenizer.decode(ids[:-1]) == f"<think></think><answer>{record.target}</answer>"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("reward.think=none",), "sft.reasoning=empty teaches responses for reward.think=required"),
        (("sft.reasoning=none",), "reward.think=required"),
        (("sft.scratch=true", "model.lora={rank: 4}"), "model.lora=null"),
        (("sft.pack_tokens=40",), r"record '.*expected at most sft.pack_tokens=40"),
        (("checkpoint.best=eval/loss",), "checkpoint.best: expected null"),
        (("checkpoint.url=s3://bucket/runs",), "checkpoint.url: expected null"),
        (("model.path=nowhere/at/all",), "nowhere/at/all"),
        (("data.source=samples", "data.path=nowhere.jsonl"), "nowhere.jsonl"),
    ],
)
def test_invalid_settings_are_reported_before_output_is_written(
    overrides: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match=message):
        fine_tune(load_config("demo", [*SHORT, *overrides]), tmp_path / "out", QUIET)
    assert not (tmp_path / "out" / "sft.yaml").exists()


def test_output_is_a_loadable_model_and_rejects_a_changed_config(tmp_path: Path) -> None:
    out = tmp_path / "out"
    config = load_config("demo", SHORT)
    summary = fine_tune(config, out, QUIET)
    rows = [json.loads(line) for line in (out / "sft.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert ["eval/loss" in row for row in rows] == [False, True, True]
    assert set(rows[0]) == {"step", "loss", "lr", *NORMS, "tokens", "response_tokens", "seconds"}
    assert summary["evaluation"]["last"]["step"] == 3
    assert summary["evaluation"]["best"]["loss"] <= summary["evaluation"]["last"]["loss"]
    assert (out / "sft.html").read_text().count("<svg") == 4
    modes = [(out / name).stat().st_mode for name in ("sft.jsonl", "model.safetensors")]
    modes += [file.stat().st_mode for file in (out / "checkpoints" / "step-000003").iterdir() if file.is_file()]
    assert len(set(modes)) == 1, "files of the output folder differ in permissions"
    assert model_folder(str(out)) == out
    assert model_folder(str(out / "checkpoints" / "step-000003")).is_dir()
    stamp = (out / "model.safetensors").stat().st_mtime_ns
    assert fine_tune(config, out, QUIET) == summary
    assert (out / "model.safetensors").stat().st_mtime_ns == stamp
    with pytest.raises(ConfigError, match=r"sft.lr was 1e-05, is now 0.1; choose another --out"):
        fine_tune(load_config("demo", [*SHORT, "sft.lr=0.1"]), out, QUIET)


def test_interrupted_final_export_is_completed_on_rerun(tmp_path: Path) -> None:
    config = load_config("demo", [*SHORT, "sft.eval_examples=0"])
    summary = fine_tune(config, tmp_path, QUIET)
    weights = (tmp_path / "model.safetensors").read_bytes()
    for name in ("sft_summary.json", "config.json", "model.safetensors"):
        (tmp_path / name).unlink()
    (tmp_path / ".partial").mkdir()
    (tmp_path / ".partial" / "model.safetensors").write_text("half")
    assert fine_tune(config, tmp_path, QUIET) == summary
    assert summary["evaluation"] is None
    assert (tmp_path / "model.safetensors").read_bytes() == weights
    assert model_folder(str(tmp_path)) == tmp_path
    assert not (tmp_path / ".partial").exists()


@pytest.mark.parametrize("name", ["learner.pt", "model.safetensors"])
@pytest.mark.parametrize("content", [b"", b"PK half of it"])
def test_corrupt_checkpoint_file_is_reported(name: str, content: bytes, tmp_path: Path) -> None:
    config = load_config("demo", [*SHORT, "sft.eval_examples=0"])
    fine_tune(config, tmp_path, QUIET)
    (tmp_path / "sft_summary.json").unlink()
    (tmp_path / "checkpoints" / "step-000003" / name).write_bytes(content)
    with pytest.raises(UserError, match=f"step-000003/{name}"):
        fine_tune(config, tmp_path, QUIET)


def test_output_folder_with_foreign_files_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for out, found in ((tmp_path, "found files in it"), (tmp_path / "file", "found a file")):
        with pytest.raises(RunError, match=found):
            fine_tune(load_config("demo", SHORT), out, QUIET)
    assert (tmp_path / "file").read_text() == "mine"


def test_adapter_is_saved_separately_and_merged_into_the_model(tmp_path: Path, encoder: PromptEncoder) -> None:
    overrides = [*SHORT, "model.path=tiny", "model.lora={rank: 4}", "sft.lr=0.01", "sft.warmup_steps=0"]
    fine_tune(load_config("demo", [*overrides, "sft.optimizer=muon"]), tmp_path, QUIET)
    adapted = PeftModel.from_pretrained(policy(), str(tmp_path / "adapter"))
    merged = load_model(ModelConfig(), tmp_path, torch.device("cpu"), seed=0)
    example = prompts(1)[0].example
    sequence = encoder.encode(example), Completion(collator(encoder).response(example))
    logits = [plain_logits(model, *sequence) for model in (adapted, merged, policy())]
    assert torch.allclose(logits[0], logits[1], atol=1e-4)
    assert not torch.allclose(logits[0], logits[2], atol=1e-2)


def user_records(folder: Path, *changes: dict[str, object]) -> tuple[str, ...]:
    """Overrides that train on VQA records r0, r1, ..., each with its changed fields."""
    plain = {"task": "vqa", "images": ["a.png"], "prompt": "what ?", "reference": "word"}
    lines = [{**plain, "id": f"r{k}", **change} for k, change in enumerate(changes)]
    (folder / "data.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    Image.new("RGB", (60, 60)).save(folder / "a.png")
    data = (f"data.path={folder / 'data.jsonl'}", "data.source=samples", "data.stages=[]")
    return (*SHORT, *data, "sft.steps=6", "sft.batch_size=1", "sft.checkpoint_every=6")


def logged_and_saved(out: Path) -> tuple[int, list[str]]:
    """Number of logged steps, and the names of the checkpoints."""
    return len((out / "sft.jsonl").read_text().splitlines()), [p.name for p in (out / "checkpoints").glob("step-*")]


def test_broken_record_mid_training_leaves_a_checkpoint_of_the_last_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geovlm_ray.training.sft.RECORDS_CHECKED", 0)
    settings = user_records(tmp_path, *({"reference": "word " * (2000 if k == 5 else 1)} for k in range(6)))
    with pytest.raises(DataError, match="record 'r5'"):
        fine_tune(load_config("demo", settings), tmp_path / "out", QUIET)
    done, kept = logged_and_saved(tmp_path / "out")
    assert 0 <= done < 6
    assert kept == ([f"step-{done:06d}"] if done else [])


def test_corrected_data_and_other_weights_are_refused_by_file_and_accepted_on_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geovlm_ray.training.sft.RECORDS_CHECKED", 0)
    model, out = shutil.copytree(model_folder("tiny"), tmp_path / "model"), tmp_path / "out"
    records = [{"reference": "word " * (2000 if k == 3 else 1)} for k in range(6)]
    settings = (*user_records(tmp_path, *records), f"model.path={model}", "sft.checkpoint_every=1")
    with pytest.raises(DataError, match="record 'r3'"):
        fine_tune(load_config("demo", settings), out, QUIET)
    reached, _ = logged_and_saved(out)
    user_records(tmp_path, *[{}] * 6)
    (model / "chat_template.jinja").write_text((model / "chat_template.jinja").read_text() + "\n")
    message = (
        rf"output folder {out} was begun with other content: data {tmp_path}/data\.jsonl: expected xxh3:\w+, found "
        rf"xxh3:\w+; model {model}/chat_template\.jinja: .*; restore it, choose another --out, or go on with --accept"
    )
    with pytest.raises(RunError, match=message):
        fine_tune(load_config("demo", settings), out, QUIET)
    with pytest.raises(ConfigError, match=r"sft\.steps was 6, is now 2"):
        fine_tune(load_config("demo", [*settings, "sft.steps=2"]), out, QUIET, accept_changes=True)
    fine_tune(load_config("demo", settings), out, QUIET, accept_changes=True)
    assert logged_and_saved(out)[0] == 6
    (change,) = json.loads((out / "contents.json").read_text())["changes"]
    assert (change["step"], list(change["differences"])) == (reached, ["data", "model"])
    assert change["differences"]["data"][0] in (out / "sft.html").read_text()


def test_step_with_a_failed_evaluation_is_repeated(tmp_path: Path) -> None:
    settings = user_records(tmp_path, {}, {"split": "test", "images": ["b.png"]})
    config = load_config("demo", settings)
    with pytest.raises(DataError, match=r"record 'r1': .*b.png"):
        fine_tune(config, tmp_path / "out", QUIET)
    assert logged_and_saved(tmp_path / "out") == (1, [])
    Image.new("RGB", (60, 60)).save(tmp_path / "b.png")
    fine_tune(config, tmp_path / "out", QUIET)
    assert logged_and_saved(tmp_path / "out") == (6, ["step-000006"])
