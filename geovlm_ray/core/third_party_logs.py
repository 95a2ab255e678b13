"""Log messages on the terminal: one line each, and none of third parties that users cannot act on."""

from __future__ import annotations

import logging
import os
import warnings

from geovlm_ray.core.terminal import LineFormatter

ENVIRONMENT = {
    "RAY_COLOR_PREFIX": "0",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
}
NOISY_LOGGERS = ("vllm", "torch.utils.cpp_extension", "transformers")


def silence_third_party_logs() -> None:
    """Lower third-party log levels; call before importing torch, transformers or vllm.

    Environment variables that are already set take precedence.
    """
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(LineFormatter())
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for name in NOISY_LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(vllm|torch|transformers)\b.*")
