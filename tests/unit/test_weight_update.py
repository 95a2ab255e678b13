"""Weights arrive as they were sent, or not at all."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from geovlm_ray.errors import RunError
from geovlm_ray.sync.update import WeightUpdate


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_tensors_arrive_as_they_were_sent(dtype: torch.dtype) -> None:
    sent = {"a": torch.randn(3, 4).to(dtype), "b": torch.randn(5).to(dtype)}
    received = WeightUpdate.of(7, sent).tensors()
    assert all(torch.equal(received[name], sent[name]) and received[name].dtype == dtype for name in sent)


def test_a_changed_byte_is_noticed() -> None:
    update = WeightUpdate.of(7, {"a": torch.zeros(4)})
    changed = {"a": update.arrays["a"].copy()}
    changed["a"][2] = 1e-30
    with pytest.raises(RunError, match="version 7"):
        dataclasses.replace(update, arrays=changed).tensors()


def test_what_is_received_may_be_written_to() -> None:
    update = WeightUpdate.of(7, {"a": torch.zeros(4)})
    update.arrays["a"].flags.writeable = False
    update.tensors()["a"].add_(1)
    assert not update.arrays["a"].any()
