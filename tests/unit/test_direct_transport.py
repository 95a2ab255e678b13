"""Parts of the direct transports that need no engine: digests of tensors, and connections."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from geovlm_ray.core.errors import LostError
from geovlm_ray.transport.channels import Gloo
from geovlm_ray.transport.connection import Endpoint, Listener, connect
from geovlm_ray.transport.digest import COLUMNS, digest_values, tensor_digest, weighted_sums

Digest = Callable[[torch.Tensor], torch.Tensor]


@pytest.mark.parametrize("function", [tensor_digest, weighted_sums])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int8])
@pytest.mark.parametrize("size", [1, 7, COLUMNS - 1, COLUMNS, 3 * COLUMNS + 5])
def test_digest_depends_on_every_bit_and_on_the_order(function: Digest, dtype: torch.dtype, size: int) -> None:
    def digest(tensor: torch.Tensor) -> list[int]:
        return digest_values({"a": function(tensor)})["a"]

    generator = torch.Generator().manual_seed(size)
    tensor = torch.randint(0, 100, (size,), generator=generator).to(dtype)
    expected = digest(tensor)
    assert digest(tensor.clone()) == expected
    assert digest(tensor.view(1, -1)) == expected
    for at in {0, size // 2, size - 1}:
        for bit in range(8 * tensor.element_size()):
            changed = tensor.clone()
            changed.view(torch.uint8)[at * tensor.element_size() + bit // 8] ^= 1 << bit % 8
            assert digest(changed) != expected
    if size > 1:
        swapped = torch.arange(size).to(torch.float32).to(dtype)
        before = digest(swapped)
        swapped[[0, -1]] = swapped[[-1, 0]]
        assert (digest(swapped) == before) == bool(swapped[0] == swapped[-1])


@given(st.integers(0, 4 * COLUMNS - 1), st.integers(0, 4 * COLUMNS - 1))
def test_sums_notice_two_exchanged_elements(first: int, second: int) -> None:
    tensor = torch.arange(4 * COLUMNS, dtype=torch.float32)
    expected = weighted_sums(tensor)
    tensor[[first, second]] = tensor[[second, first]]
    assert torch.equal(weighted_sums(tensor), expected) == (first == second)


def test_messages_arrive_in_order_and_a_closed_end_is_noticed() -> None:
    listener = Listener("127.0.0.1", ("cpu",), timeout_s=5)
    sender, address = connect(listener.endpoint, timeout_s=5)
    assert address == "127.0.0.1"
    receiver = listener.accept()
    for message in ({"a": 1}, [b"bytes", None]):
        sender.send(message)
        assert receiver.receive() == message
    sender.close()
    with pytest.raises(LostError, match="the learner closed the connection"):
        receiver.receive()


def test_silent_end_is_lost_after_the_timeout() -> None:
    listener = Listener("127.0.0.1", ("cpu",), timeout_s=0.1)
    with pytest.raises(LostError, match=r"the learner did not connect within 0\.1 s"):
        listener.accept()
    sender, _ = connect(listener.endpoint, timeout_s=0.1)
    with pytest.raises(LostError, match=r"the engine at 127\.0\.0\.1:\d+ did not answer within 0\.1 s"):
        sender.receive()


@pytest.mark.parametrize("sent", [b"", b"x" * 32, b"x" * 7])
def test_connection_without_the_token_is_closed_unread(sent: bytes) -> None:
    listener = Listener("127.0.0.1", ("cpu",), timeout_s=0.3)
    stranger = socket.create_connection((listener.endpoint.host, listener.endpoint.port))
    stranger.sendall(sent)
    stranger.shutdown(socket.SHUT_WR)
    with pytest.raises(LostError, match="did not connect"):
        listener.accept()
    assert stranger.recv(1) == b""


def test_slow_stranger_does_not_keep_others_out() -> None:
    listener = Listener("127.0.0.1", ("cpu",), timeout_s=5)
    socket.create_connection((listener.endpoint.host, listener.endpoint.port))
    connected = threading.Thread(target=connect, args=(listener.endpoint, 5))
    connected.start()
    listener.accept()
    connected.join()


def test_engine_that_is_gone_is_lost() -> None:
    listener = Listener("127.0.0.1", ("cpu",), timeout_s=5)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    endpoint = Endpoint("127.0.0.1", port, b"token", ("cpu",))
    with pytest.raises(LostError, match=rf"the engine at 127\.0\.0\.1:{port} cannot be reached"):
        connect(endpoint, timeout_s=5)
    assert "token" not in repr(listener.endpoint)


def test_engines_are_divided_over_the_ranks_and_stay_with_their_rank() -> None:
    engines = [Endpoint("127.0.0.1", 1, bytes([k]), ("cpu",)) for k in range(6)]
    ranks = [Gloo(timeout_s=5) for _ in range(2)]

    def served(endpoints: list[Endpoint]) -> list[set[bytes]]:
        return [{e.token for e in transport.served(r, 2, endpoints)} for r, transport in enumerate(ranks)]

    first = served(engines[:4])
    assert [len(part) for part in first] == [2, 2]
    assert first[0].isdisjoint(first[1])
    later = served([*engines[1:4], *engines[4:]])
    assert sorted(len(part) for part in later) == [2, 3]
    assert all(before - {engines[0].token} <= after for before, after in zip(first, later, strict=True))
