"""Task-aware rewards: pure, batched functions of responses and targets."""

from geovlm_ray.rewards.base import Embedder
from geovlm_ray.rewards.config import RewardConfig
from geovlm_ray.rewards.score import needs_embedder, score_batch

__all__ = ["Embedder", "RewardConfig", "needs_embedder", "score_batch"]
