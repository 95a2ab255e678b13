"""An exported adapter loads in transformers and vLLM and answers like the original."""

from __future__ import annotations

from pathlib import Path

import pytest

from geovlm_ray.config import load_config
from geovlm_ray.core.schema import Prompt
from geovlm_ray.data.scenes import scene_example
from geovlm_ray.serving.answering import Answerer
from geovlm_ray.serving.model_ref import resolve_model
from geovlm_ray.training.local import make_engine
from tests.system.exports import command, train_adapter
from tests.system.runs import COMMAND

pytestmark = pytest.mark.slow
TASKS = ("vqa", "object_detection", "visual_grounding", "multilabel_classification")
EXAMPLES_PER_TASK = 3


def test_exported_model_answers_like_the_adapter_in_transformers_and_vllm(tmp_path: Path) -> None:
    trained = train_adapter(tmp_path)
    folder = tmp_path
    output = command(COMMAND, "export", str(trained), "model", cwd=folder)
    assert "Max log-prob difference to" in output
    examples = [scene_example(task, 1_000_000_011, k) for task in TASKS for k in range(EXAMPLES_PER_TASK)]
    queries = [(example.images, example.question, example.task) for example in examples]
    adapter = resolve_model(str(trained))
    assert adapter.adapter
    expected = [Answerer(adapter).answer(*query).response for query in queries]
    untrained = Answerer(resolve_model("tiny"))
    assert [untrained.answer(*query).response for query in queries] != expected
    exported = resolve_model(str(folder / "model"))
    assert not exported.adapter
    assert [Answerer(exported).answer(*query).response for query in queries] == expected
    engine = make_engine(load_config(str(folder / "model" / "geovlm_ray.yaml")), exported.path)
    groups = engine.generate([Prompt(k, example) for k, example in enumerate(examples)], greedy=True)
    assert [group.samples[0].text for group in groups] == expected
