"""Weights that an engine receives in another thread than the one that computes, on the CPU."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.slow


def test_weights_are_repacked_completely_in_a_new_thread() -> None:
    """In a process of its own: the plan of the first thread that repacks a shape serves all others."""
    code = """
        from concurrent.futures import ThreadPoolExecutor
        import torch
        from geovlm_ray.rollout.vllm_compat import adopt_number_of_threads
        from vllm.platforms import current_platform
        current_platform.import_kernels()
        from vllm import _custom_ops as ops

        def errors_of_repacking():
            adopt_number_of_threads()
            errors = []
            for _ in range(20):
                # What is not written has the content of freed memory.
                [torch.full((144 * 48,), torch.nan) for _ in range(20)]
                weight = torch.randn(144, 48)
                repacked = ops.create_onednn_mm(weight.t(), 32)
                errors.append(float((ops.onednn_mm(repacked, torch.eye(48), None).t() - weight).abs().max()))
            return errors

        torch.set_num_threads(1)
        with ThreadPoolExecutor(1) as other:
            print(*other.submit(errors_of_repacking).result(), *errors_of_repacking())
    """
    found = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    errors = [float(word) for word in found.stdout.splitlines()[-1].split()]
    assert len(errors) == 40
    assert all(error < 1e-5 for error in errors)
