"""In bfloat16, an output layer in fp32 brings the log-probs of engine and learner closer together."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.system.runs import metrics, train

pytestmark = pytest.mark.slow
BFLOAT16 = ("model.dtype=bfloat16", "sync.parity_tolerance=1", "rollout.prompts_per_step=16", "--local")


def test_fp32_head_brings_engine_and_learner_closer(tmp_path: Path) -> None:
    """In the first step both have the same weights, so that their KL is that of rounding."""
    rows = {
        head: metrics(train(tmp_path, f"head-{head}", 1, *BFLOAT16, f"model.fp32_head={head}"))[0]
        for head in ("false", "true")
    }
    assert rows["true"]["loss/kl_to_sampler"] < rows["false"]["loss/kl_to_sampler"] / 2
