"""A local run that trains an adapter: it can be killed and resumed, and its export loads in transformers and vLLM."""

from __future__ import annotations

from pathlib import Path

import pytest

from geovlm_ray.cli import main
from geovlm_ray.config import load_config
from geovlm_ray.core.schema import Prompt
from geovlm_ray.data.scenes import scene_example
from geovlm_ray.serving.answering import Answerer
from geovlm_ray.serving.model_ref import resolve_model
from geovlm_ray.training.local import make_engine
from tests.system.adapter import ADAPTER, STEPS
from tests.system.runs import arguments, check_equal_runs, metrics, start_and_wait

pytestmark = pytest.mark.slow
TASKS = ("vqa", "object_detection", "visual_grounding", "multilabel_classification")
EXAMPLES_PER_TASK = 3


def test_exported_model_answers_like_the_adapter_in_transformers_and_vllm(
    adapter_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(adapter_run), str(tmp_path / "model")]) == 0
    assert "Max log-prob difference to" in capsys.readouterr().out
    examples = [scene_example(task, 1_000_000_011, k) for task in TASKS for k in range(EXAMPLES_PER_TASK)]
    queries = [(example.images, example.question, example.task) for example in examples]
    adapter = resolve_model(str(adapter_run))
    assert adapter.adapter
    expected = [Answerer(adapter).answer(*query).response for query in queries]
    untrained = Answerer(resolve_model("tiny"))
    assert [untrained.answer(*query).response for query in queries] != expected
    exported = resolve_model(str(tmp_path / "model"))
    assert not exported.adapter
    assert [Answerer(exported).answer(*query).response for query in queries] == expected
    engine = make_engine(load_config(str(tmp_path / "model" / "geovlm_ray.yaml")), exported.path)
    groups = engine.generate([Prompt(k, example) for k, example in enumerate(examples)], greedy=True)
    assert [group.samples[0].text for group in groups] == expected


def test_resumed_run_equals_uninterrupted_run(adapter_run: Path, tmp_path: Path) -> None:
    process = start_and_wait(tmp_path, "killed", STEPS, 2, *ADAPTER)
    process.kill()
    process.wait()
    assert len(metrics(tmp_path / "killed")) < STEPS
    assert main(arguments(tmp_path, "killed", STEPS, *ADAPTER)[1:]) == 0
    check_equal_runs(tmp_path / "killed", adapter_run)
