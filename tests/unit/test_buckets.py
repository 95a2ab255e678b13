"""Weight buckets: tensors round-trip, and corruption is detected."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from geovlm_ray.core.errors import RunError
from geovlm_ray.transport.buckets import Inbox, pack, prefetch_buckets

SIZE = 64
"""Bucket size in bytes."""


def send_and_receive(tensors: dict[str, torch.Tensor], order: int = 1) -> dict[str, torch.Tensor]:
    """Pack tensors, deliver their buckets with stride ``order``, and return the tensors received."""
    inbox = Inbox()
    *early, complete = [inbox.put(bucket) for bucket in list(pack(7, tensors.items(), size=SIZE))[::order]]
    assert not any(early)
    assert complete is not None
    return dict(pair for bucket in complete for pair in bucket.tensors())


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_tensors_round_trip_in_any_bucket_order(dtype: torch.dtype, order: int) -> None:
    sent = {name: torch.randn(3, 4).to(dtype) for name in "abcdefg"}
    assert len(list(pack(7, sent.items(), size=SIZE))) > 1
    received = send_and_receive(sent, order)
    assert list(received) == list(sent)
    assert all(torch.equal(received[name], sent[name]) and received[name].dtype == dtype for name in sent)


def test_mixed_dtypes_and_shapes_round_trip_with_prefetching() -> None:
    sent = {
        "a": torch.randn(3, dtype=torch.bfloat16),
        "b": torch.randn(2, 5).T,
        "c": torch.tensor(3, dtype=torch.int64),
        "d": torch.randn(40),
    }
    buckets = list(prefetch_buckets(pack(1, sent.items(), size=SIZE)))
    assert [(b.number, b.last) for b in buckets] == [(i, i == len(buckets) - 1) for i in range(len(buckets))]
    received = dict(pair for bucket in buckets for pair in bucket.tensors())
    assert all(torch.equal(received[name], sent[name]) and received[name].dtype == sent[name].dtype for name in sent)


def test_corrupted_byte_is_detected() -> None:
    (bucket,) = pack(7, [("a", torch.zeros(4))])
    changed = {"a": bucket.arrays["a"].copy()}
    changed["a"][2] = 1e-30
    with pytest.raises(RunError, match="version 7, bucket 0"):
        Inbox().put(dataclasses.replace(bucket, arrays=changed))


def test_swapped_tensors_and_wrong_version_are_detected() -> None:
    (bucket,) = pack(7, [("a", torch.zeros(4)), ("b", torch.ones(4))])
    swapped = {"a": bucket.arrays["b"], "b": bucket.arrays["a"]}
    for changed in (dataclasses.replace(bucket, arrays=swapped), dataclasses.replace(bucket, version=8)):
        with pytest.raises(RunError, match="checksum"):
            Inbox().put(changed)


def test_incomplete_version_is_discarded_when_the_next_one_arrives() -> None:
    inbox = Inbox()
    tensors = {"a": torch.zeros(32), "b": torch.ones(32)}
    first, second = list(pack(1, tensors.items(), size=SIZE)), list(pack(2, tensors.items(), size=SIZE))
    assert inbox.put(first[0]) is None
    assert inbox.put(second[1]) is None
    complete = inbox.put(second[0])
    assert complete is not None
    assert [(bucket.version, bucket.number) for bucket in complete] == [(2, 0), (2, 1)]
    with pytest.raises(RunError, match="version 1 arrived after those of version 2"):
        inbox.put(first[1])
