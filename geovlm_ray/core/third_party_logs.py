"""Silence about things that no user of this package can act on."""

from __future__ import annotations

import logging
import os
import warnings

ENVIRONMENT = {
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
}
LOUD_LOGGERS = ("vllm", "torch.utils.cpp_extension", "transformers")


def silence_third_party_logs() -> None:
    """Call before torch, transformers and vllm are imported; a user's own settings are kept."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for name in LOUD_LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(vllm|torch|transformers)\b.*")
