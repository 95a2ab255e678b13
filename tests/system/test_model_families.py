"""Every model family from fine-tuning to an exported model, by random models: one in `make test`, all in `test-all`."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.random_families import CONFIGS, save
from geovlm_ray.cli import main
from geovlm_ray.config import load_config
from geovlm_ray.core.schema import Prompt
from geovlm_ray.data.sampler import PromptSampler, SceneStream
from geovlm_ray.data.scenes import scene_example
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


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model of each family."""
    return {model_type: save(model_type, tmp_path_factory.mktemp(model_type)) for model_type in CONFIGS}


def in_test(*first: str) -> list[object]:
    """The families, of which only ``first`` run in `make test`."""
    return [pytest.param(name, marks=() if name in first else pytest.mark.long) for name in CONFIGS]


@pytest.mark.parametrize(
    ("model_type", "lora"),
    [
        pytest.param(name, lora, marks=() if (name, lora) in fast else pytest.mark.long)
        for fast in ({("qwen3_vl", FULL), ("qwen3_5", LORA)},)
        for name in CONFIGS
        for lora in (FULL, LORA, LORA_ALL)
    ],
)
def test_engine_and_learner_agree_after_each_sync(model_type: str, lora: str, folders: dict[str, Path]) -> None:
    config = load_config("demo", [*SHORT, f"model.lora={lora}"])
    rollouts = LocalRollouts(make_engine(config, folders[model_type]))
    weights = RandomWeights(make_learner(config, folders[model_type]))
    prompts = PromptSampler(SceneStream(0), config.data, 6).batch(0)
    for version in (1, 2, 3):
        weights.set_version(version)
        rollouts.update_weights(weights.learner.weights)
        groups = rollouts.generate(prompts, group_size=2)
        assert {s.weight_version for g in groups for s in g.samples} == {version}
        assert weights.max_error(groups) < 1e-3


@pytest.mark.parametrize("model_type", in_test("qwen3_vl"))
def test_model_is_fine_tuned_trained_exported_and_asked(
    model_type: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    model, exported = str(tmp_path / "model"), str(tmp_path / "exported")
    steps = (
        "sft.steps=5",
        "sft.batch_size=6",
        "sft.log_every=1",
        "sft.eval_examples=6",
        "sft.readers=0",
        "sft.lr=1e-3",
    )
    assert main(["sft", "demo", "--out", model, f"model.path={folders[model_type]}", *steps]) == 0
    losses = [row["loss"] for row in rows(tmp_path / "model") if "loss" in row]
    assert losses[-1] < losses[0]
    run = (f"run.dir={tmp_path}", "run.name=rl", "run.steps=3", f"model.path={model}", *SMALL, *SHORT)
    assert main(["train", "demo", "--local", *run]) == 0
    assert [row["parity/max_abs"] < 1e-3 for row in metrics(tmp_path / "rl")] == [True] * 3
    assert main(["export", str(tmp_path / "rl"), exported]) == 0
    examples = [scene_example(task, 0, k) for k, task in enumerate(("vqa", "temporal_classification"))]
    answerer = Answerer(resolve_model(exported))
    expected = [answerer.answer(e.images, e.question, e.task).response for e in examples]
    engine = make_engine(load_config(f"{exported}/geovlm_ray.yaml"), Path(exported))
    groups = engine.generate([Prompt(k, example) for k, example in enumerate(examples)], greedy=True)
    assert [group.samples[0].text for group in groups] == expected


@pytest.mark.long
@pytest.mark.parametrize("model_type", CONFIGS)
def test_run_on_ray_trains_on_every_sample(model_type: str, folders: dict[str, Path], tmp_path: Path) -> None:
    run = train(tmp_path, "ray", 3, f"model.path={folders[model_type]}", "placement.rollout.actors=1", *SHORT)
    check_samples(run, 3)
    assert max(row["parity/max_abs"] for row in metrics(run)) < 1e-3


@pytest.mark.parametrize("model_type", in_test("qwen3_vl"))
def test_two_ranks_equal_one(model_type: str, folders: dict[str, Path], tmp_path: Path) -> None:
    check_two_ranks_equal_one((f"model.path={folders[model_type]}",), tmp_path, resume=False)
