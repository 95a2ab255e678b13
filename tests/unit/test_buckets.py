"""Weight buckets: tensors round-trip, and corruption is detected."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from geovlm_ray.core.errors import RunError
from geovlm_ray.transport.base import WeightUpdate
from geovlm_ray.transport.object_store import ObjectStore, WeightBucket, pack_buckets


@pytest.fixture(autouse=True)
def _small_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geovlm_ray.transport.object_store.BUCKET_BYTES", 64)


def buckets_of(version: int, tensors: dict[str, torch.Tensor]) -> list[WeightBucket]:
    return list(pack_buckets(WeightUpdate(version, tensors.items())))


def receive_in_order(buckets: list[WeightBucket]) -> dict[str, torch.Tensor]:
    """The tensors that an engine receives; None before the last bucket."""
    transport = ObjectStore(timeout_s=60)
    *early, update = [transport.receive(bucket) for bucket in buckets]
    assert early == [None] * (len(buckets) - 1)
    assert update is not None
    assert update.version == buckets[0].version
    return dict(update.tensors)


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_tensors_round_trip_in_any_bucket_order(dtype: torch.dtype, order: int) -> None:
    sent = {name: torch.randn(3, 4).to(dtype) for name in "abcdefg"}
    buckets = buckets_of(7, sent)
    assert len(buckets) > 1
    received = receive_in_order(buckets[::order])
    assert list(received) == list(sent)
    assert all(torch.equal(received[name], sent[name]) and received[name].dtype == dtype for name in sent)


def test_mixed_dtypes_and_shapes_round_trip() -> None:
    sent = {
        "a": torch.randn(3, dtype=torch.bfloat16),
        "b": torch.randn(2, 5).T,
        "c": torch.tensor(3, dtype=torch.int64),
        "d": torch.randn(40),
    }
    buckets = list(ObjectStore(timeout_s=60).send(WeightUpdate(1, sent.items()), rank=0, ranks=2, endpoints=[]))
    assert [(b.number, b.last) for b in buckets] == [(i, i == len(buckets) - 1) for i in range(len(buckets))]
    received = receive_in_order(buckets)
    assert all(torch.equal(received[name], sent[name]) and received[name].dtype == sent[name].dtype for name in sent)


def test_other_ranks_gather_all_tensors_and_send_none() -> None:
    gathered = []
    tensors = ((name, gathered.append(name) or torch.zeros(3)) for name in "abc")
    assert not list(ObjectStore(timeout_s=60).send(WeightUpdate(1, tensors), rank=1, ranks=2, endpoints=[]))
    assert gathered == ["a", "b", "c"]


def test_corrupted_byte_is_detected() -> None:
    (bucket,) = buckets_of(7, {"a": torch.zeros(4)})
    changed = {"a": bucket.arrays["a"].copy()}
    changed["a"][2] = 1e-30
    with pytest.raises(RunError, match="version 7, bucket 0"):
        ObjectStore(timeout_s=60).receive(dataclasses.replace(bucket, arrays=changed))


def test_swapped_tensors_and_wrong_version_are_detected() -> None:
    (bucket,) = buckets_of(7, {"a": torch.zeros(4), "b": torch.ones(4)})
    swapped = {"a": bucket.arrays["b"], "b": bucket.arrays["a"]}
    for changed in (dataclasses.replace(bucket, arrays=swapped), dataclasses.replace(bucket, version=8)):
        with pytest.raises(RunError, match="checksum"):
            ObjectStore(timeout_s=60).receive(changed)


def test_incomplete_version_is_discarded_when_the_next_one_arrives() -> None:
    transport = ObjectStore(timeout_s=60)
    first, second = (buckets_of(v, {"a": torch.full((32,), v), "b": torch.full((32,), v)}) for v in (1, 2))
    assert transport.receive(first[0]) is None
    assert transport.receive(second[1]) is None
    update = transport.receive(second[0])
    assert update is not None
    assert update.version == 2
    assert {name: int(tensor[0]) for name, tensor in update.tensors} == {"a": 2, "b": 2}
    with pytest.raises(RunError, match="version 1 arrived after those of version 2"):
        transport.receive(first[1])
