"""Every model family from fine-tuning to an exported model, by random models: one in `make test`, all in `test-all`."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch

from benchmarks.random_families import CONFIGS, save
from geovlm_ray.cli import main
from geovlm_ray.config import load_config
from geovlm_ray.core.schema import Prompt
from geovlm_ray.data.sampler import PromptSampler, SceneStream
from geovlm_ray.data.scenes import scene_example
from geovlm_ray.model.config import ModelConfig
from geovlm_ray.model.families import family_of_folder
from geovlm_ray.model.loading import load_model
from geovlm_ray.serving.answering import Answerer
from geovlm_ray.serving.model_ref import resolve_model
from geovlm_ray.training.local import LocalRollouts, make_engine, make_learner
from tests.system.fine_tunings import rows
from tests.system.random_weights import RandomWeights
from tests.system.ranks import check_two_ranks_equal_one
from tests.system.runs import SMALL, check_samples, metrics, train

pytestmark = pytest.mark.slow
SHORT = ("rollout.max_tokens=8", "rollout.max_model_len=512")
FULL, LORA, LORA_ALL = "null", "{rank: 4}", "{rank: 4, targets: all}"
BF16_TOLERANCE = 0.05
"""Of Qwen3.5: vLLM's linear attention takes bfloat16 alone on the CPU."""
ON_THE_CPU = [name for name in CONFIGS if name != "qwen3_vl_moe"]
"""Families whose weights vLLM 0.32 updates on the CPU; of experts it keeps the ones that it began with."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model of each family."""
    return {model_type: save(model_type, tmp_path_factory.mktemp(model_type)) for model_type in CONFIGS}


def in_test(*first: str, of: Iterable[str] = CONFIGS) -> list[object]:
    """The families, of which only ``first`` run in `make test`."""
    return [pytest.param(name, marks=() if name in first else pytest.mark.long) for name in of]


def settings(model_type: str) -> tuple[tuple[str, ...], float]:
    """Settings of the dtype of a family, and how far log-probs of engine and learner may differ."""
    if model_type == "qwen3_5":
        return ("model.dtype=bfloat16", f"sync.parity_tolerance={BF16_TOLERANCE}"), BF16_TOLERANCE
    return (), 1e-3


@pytest.mark.parametrize(
    ("model_type", "lora"),
    [
        pytest.param(name, lora, marks=() if (name, lora) == ("qwen3_5", LORA) else pytest.mark.long)
        for name in ON_THE_CPU
        for lora in (FULL, LORA, LORA_ALL)
    ],
)
def test_engine_and_learner_agree_after_each_sync(model_type: str, lora: str, folders: dict[str, Path]) -> None:
    dtype, tolerance = settings(model_type)
    config = load_config("demo", [*SHORT, *dtype, f"model.lora={lora}"])
    rollouts = LocalRollouts(make_engine(config, folders[model_type]))
    weights = RandomWeights(make_learner(config, folders[model_type]))
    prompts = PromptSampler(SceneStream(0), config.data, 6).batch(0)
    for version in (1, 2, 3):
        weights.set_version(version)
        rollouts.update_weights(weights.learner.weights)
        groups = rollouts.generate(prompts, group_size=2)
        assert {s.weight_version for g in groups for s in g.samples} == {version}
        assert weights.max_error(groups) < tolerance
        weights.set_version(version + 1)
        assert weights.max_error(groups) > 2 * tolerance, "the versions are too similar to tell them apart"


@pytest.mark.long
def test_engine_and_learner_choose_the_same_experts(folders: dict[str, Path]) -> None:
    # vLLM makes process groups for experts only with the first engine of a process.
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        same, other = pool.apply(expert_errors, (folders["qwen3_vl_moe"],))
    assert same < 1e-3
    assert other > 0.01


def expert_errors(folder: Path) -> tuple[float, float]:
    """Largest log-prob difference of engine and learner, with the same and with other weights."""
    config = load_config("demo", SHORT)
    engine, weights = make_engine(config, folder), RandomWeights(make_learner(config, folder))
    groups = engine.generate(PromptSampler(SceneStream(0), config.data, 6).batch(0), group_size=2)
    same = weights.max_error(groups)
    weights.set_version(1)
    return same, weights.max_error(groups)


@pytest.mark.parametrize("model_type", in_test("qwen3_vl"))
def test_model_is_fine_tuned(model_type: str, folders: dict[str, Path], tmp_path: Path) -> None:
    data = ("sft.batch_size=6", "sft.eval_examples=6", "sft.readers=0")
    steps = ("sft.steps=5", "sft.log_every=1", "sft.lr=1e-3", *data)
    assert main(["sft", "demo", "--out", str(tmp_path / "model"), f"model.path={folders[model_type]}", *steps]) == 0
    losses = [row["loss"] for row in rows(tmp_path / "model") if "loss" in row]
    assert losses[-1] < losses[0]
    assert family_of_folder(tmp_path / "model").model_type == model_type
    load_model(ModelConfig(), tmp_path / "model", torch.device("cpu"), seed=0)


@pytest.mark.parametrize("model_type", in_test("qwen3_vl", of=ON_THE_CPU))
def test_model_is_trained_exported_and_asked(model_type: str, folders: dict[str, Path], tmp_path: Path) -> None:
    dtype, tolerance = settings(model_type)
    exported = str(tmp_path / "exported")
    run = (f"run.dir={tmp_path}", "run.name=rl", "run.steps=3", f"model.path={folders[model_type]}", *SMALL, *SHORT)
    assert main(["train", "demo", "--local", *run, *dtype]) == 0
    assert [row["parity/max_abs"] < tolerance for row in metrics(tmp_path / "rl")] == [True] * 3
    assert main(["export", str(tmp_path / "rl"), exported]) == 0
    examples = [scene_example(task, 0, k) for k, task in enumerate(("vqa", "temporal_classification"))]
    answerer = Answerer(resolve_model(exported))
    expected = [answerer.answer(e.images, e.question, e.task).response for e in examples]
    engine = make_engine(load_config(f"{exported}/geovlm_ray.yaml"), Path(exported))
    groups = engine.generate([Prompt(k, example) for k, example in enumerate(examples)], greedy=True)
    if not dtype:
        assert [group.samples[0].text for group in groups] == expected


@pytest.mark.long
@pytest.mark.parametrize("model_type", ON_THE_CPU)
def test_run_on_ray_trains_on_every_sample(model_type: str, folders: dict[str, Path], tmp_path: Path) -> None:
    dtype, tolerance = settings(model_type)
    one = "placement.rollout.actors=1"
    run = train(tmp_path, "ray", 3, f"model.path={folders[model_type]}", one, *SHORT, *dtype)
    check_samples(run, 3)
    assert max(row["parity/max_abs"] for row in metrics(run)) < tolerance


@pytest.mark.long
@pytest.mark.parametrize("model_type", CONFIGS)
def test_two_ranks_equal_one(model_type: str, folders: dict[str, Path], tmp_path: Path) -> None:
    check_two_ranks_equal_one((f"model.path={folders[model_type]}",), tmp_path, resume=False)
