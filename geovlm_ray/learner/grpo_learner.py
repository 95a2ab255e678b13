"""The learner: one update from scored groups, and the weights that come of it."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import get_peft_model_state_dict
from torch import nn

from geovlm_ray.core.schema import SampleGroup
from geovlm_ray.learner.config import LearnerConfig
from geovlm_ray.learner.loss_inputs import BatchSize, Clip, LossInputs, kl_penalty
from geovlm_ray.learner.micro_batches import MicroBatch, cut
from geovlm_ray.learner.objectives import OBJECTIVES, advantages
from geovlm_ray.learner.ranks import SINGLE_PROCESS, Ranks
from geovlm_ray.model.config import ModelConfig
from geovlm_ray.model.forward import base_model
from geovlm_ray.model.loading import (
    computation,
    engine_adapter_config,
    load_model,
    load_state,
    restore_policy,
    save_policy,
    save_state,
)
from geovlm_ray.model.prompts import PromptEncoder, banned_token_ids
from geovlm_ray.model.sharding import full_tensor, gathered, shard, shard_like
from geovlm_ray.model.shared_prefix import RowLogprobs
from geovlm_ray.transport.buckets import WeightBucket, pack

ENCODED_PROMPTS_KEPT = 512
SUMS = ("policy", "kl", "clipped", "truncated", "kl_to_sampler", "tokens")


class GrpoLearner:
    """A policy under training, its optimizer, and the version of its weights, which it alone raises.

    Where several processes train one policy, each has a learner with its place in ``ranks``; all make the same calls
    with the same groups, of which each trains on its share, and all return the same.
    """

    def __init__(
        self,
        model_config: ModelConfig,
        folder: Path,
        encoder: PromptEncoder,
        config: LearnerConfig,
        *,
        temperature: float,
        max_completion_tokens: int,
        total_steps: int,
        seed: int,
        on_gpu: bool = False,
        ranks: Ranks = SINGLE_PROCESS,
    ) -> None:
        torch.set_num_threads(config.threads)
        self.model_config = model_config
        self.config = config
        self.encoder = encoder
        self.temperature = temperature
        self.max_completion_tokens = max_completion_tokens
        self.total_steps = total_steps
        self.ranks = ranks
        self.version = 0
        self.device = torch.device("cuda" if torch.cuda.is_available() and on_gpu else "cpu")
        self.model = load_model(model_config, folder, self.device, seed)
        if config.gradient_checkpointing:
            base_model(self.model).gradient_checkpointing_enable({"use_reentrant": False})
        self.model.train()
        vocabulary = self.model.config.get_text_config().vocab_size
        self.banned = torch.tensor(banned_token_ids(encoder.processor, vocabulary), dtype=torch.long)
        self.policy = self._policy(self.model)
        self.trained = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
        self.optimizer = torch.optim.AdamW(
            self.trained.values(),
            lr=config.lr,
            betas=(config.beta1, config.beta2),
            weight_decay=config.weight_decay,
            fused=True,
        )
        self.reference = self._frozen_copy(folder, seed) if config.kl_beta and not model_config.lora else None
        self._writer = ThreadPoolExecutor(1)
        self._written: Future[None] | None = None
        self._encode = lru_cache(maxsize=ENCODED_PROMPTS_KEPT)(encoder.encode)

    def step(self, groups: Sequence[SampleGroup]) -> dict[str, float]:
        """One batch: ``mini_batches`` optimizer steps over the groups; raises the version by one.

        Groups whose rewards are all equal carry no gradient and are passed over unless the KL term needs
        them; they count in the mean all the same.

        Raises:
            ValueError: no group, a group without rewards, or a gradient that is no finite number.
        """
        if not groups:
            raise ValueError("a learner step needs at least one group, found none")
        values = {g.group_id: advantages(g, self.config, self.max_completion_tokens) for g in groups}
        bounds = np.linspace(0, len(groups), self.config.mini_batches + 1).round().astype(int)
        batches = [groups[start:end] for start, end in itertools.pairwise(bounds) if end > start]
        old = self._old_logprobs([g for batch in batches for g in self.ranks.shard(batch)], groups[0])
        sums = dict.fromkeys(SUMS, 0.0)
        grad_norms = []
        lr = self._set_lr()
        for batch in batches:
            self._accumulate(batch, values, old, sums)
            norm = nn.utils.clip_grad_norm_(self.trained.values(), self.config.max_grad_norm)
            grad_norms.append(float(full_tensor(norm)))
            if not np.isfinite(grad_norms[-1]):
                raise ValueError(f"the gradient of version {self.version} has norm {grad_norms[-1]}")
            self.optimizer.step()
            self.optimizer.zero_grad()
        sums = self.ranks.all_reduce_sum(sums)
        self.version += 1
        tokens = max(sums["tokens"], 1.0)
        return {
            "loss/policy": sums["policy"] / len(grad_norms),
            "loss/kl": sums["kl"] / len(grad_norms),
            "loss/clipped_fraction": sums["clipped"] / tokens,
            "loss/kl_to_sampler": sums["kl_to_sampler"] / tokens,
            "loss/truncated_fraction": sums["truncated"] / tokens,
            "learner/tokens": sums["tokens"],
            "grad_norm": float(np.mean(grad_norms)),
            "lr": lr,
        }

    def logprobs(self, groups: Sequence[SampleGroup]) -> list[np.ndarray]:
        """The policy's log-probs of every sample's tokens, in order, one [T] array a sample."""
        rows: list[np.ndarray] = []
        with torch.no_grad():
            for part in cut(groups, self._encode, self.config.tokens_per_micro_batch):
                micro = MicroBatch.of(part, self._encode)
                rows.extend(each.numpy() for each in self._forward(self.policy, micro).cpu().split(micro.lengths))
        return rows

    def weights(self) -> Iterator[WeightBucket]:
        """The present weights in the form that engines take: an adapter, or a model with any adapter merged.

        Rank 0 has them all; the others, which have to exhaust the iterator too, get none.
        """
        tensors, adapter = self._outgoing()
        everything = ((name, full_tensor(tensor)) for name, tensor in tensors)
        if self.ranks.rank == 0:
            yield from pack(self.version, everything, adapter)
        else:
            deque(everything, maxlen=0)

    def save(self, folder: Path) -> None:
        """Take a copy of the model or adapter and of the optimizer's state, and begin to write it; rank 0 does.

        The next steps do not wait for the disk; `saved` says when it is done.
        """
        weights = {name: _copy(p.detach()) for name, p in self.trained.items()}
        optimizer = {
            name: {key: _copy(value) for key, value in self.optimizer.state[p].items()}
            for name, p in self.trained.items()
            if p in self.optimizer.state
        }
        if self.ranks.rank == 0:
            state = {"optimizer": optimizer, "version": self.version, "rng": torch.get_rng_state()}
            self._written = self._writer.submit(self._write, folder, weights, state)

    def saved(self) -> bool:
        """Whether what `save` began is written.

        Raises:
            OSError: the disk refused it.
        """
        if self._written is None:
            return True
        if not self._written.done():
            return False
        self._written.result()
        return True

    def _write(self, folder: Path, weights: Mapping[str, torch.Tensor], state: Mapping[str, Any]) -> None:
        save_policy(self.model, self.encoder.processor, folder, weights)
        save_state(state, folder / "learner.pt")

    def close(self) -> None:
        """Nothing to end: the learner goes with its process."""

    def load(self, folder: Path) -> None:
        """Take up the state that `save` wrote, with however many ranks."""
        state = load_state(folder / "learner.pt")
        restore_policy(self.model, self.model_config, folder)
        for name, values in state["optimizer"].items():
            parameter = self.trained[name]
            self.optimizer.state[parameter] = {
                key: shard_like(parameter, value) if value.shape == parameter.shape else value
                for key, value in values.items()
            }
        self.version = state["version"]
        torch.set_rng_state(state["rng"])

    def _old_logprobs(self, groups: Sequence[SampleGroup], spare: SampleGroup) -> dict[int, torch.Tensor] | None:
        """The learner's own log-probs before the step, by group; None where the engine's serve."""
        if self.config.old_logprobs == "engine":
            return None
        found: dict[int, torch.Tensor] = {}
        with torch.no_grad():
            for micro, _ in self._in_step(groups, spare):
                lengths = [sum(len(s.token_ids) for s in g.samples) for g in micro.groups]
                rows = self._forward(self.policy, micro).split(lengths)
                found |= {g.group_id: row for g, row in zip(micro.groups, rows, strict=True)}
        return found

    def _accumulate(
        self,
        batch: Sequence[SampleGroup],
        values: dict[int, np.ndarray],
        old: dict[int, torch.Tensor] | None,
        sums: dict[str, float],
    ) -> None:
        """Add the gradient of one optimizer step over this rank's share of a batch, and to the sums for the metrics."""
        lengths = [len(s.token_ids) for g in batch for s in g.samples]
        size = BatchSize(len(lengths), sum(lengths), self.max_completion_tokens)
        objective = OBJECTIVES[self.config.objective]
        clip = Clip(self.config.clip_low, self.config.clip_high)
        useful = [g for g in self.ranks.shard(batch) if self.config.kl_beta or np.any(values[g.group_id])]
        for micro, counts in self._in_step(useful, batch[0]):
            tokens = self._loss_inputs(micro, values, old if counts else None)
            policy = objective.loss(tokens, clip, size)
            loss = policy.loss
            if self.config.kl_beta:
                kl = kl_penalty(tokens, self._reference_logprobs(micro), size, objective.kl_aggregation)
                loss = loss + self.config.kl_beta * kl
                sums["kl"] += float(kl.detach()) * counts
            # The gradients of sharded weights are averaged over the ranks, and their sum is wanted.
            (loss * self.ranks.size * counts).backward()
            if not counts:
                continue
            with torch.no_grad():
                drift = tokens.logprobs - micro.rollout_logprobs.to(self.device)
                sums["kl_to_sampler"] += float((drift.exp() - 1 - drift).sum())
                sums["policy"] += float(policy.loss)
                sums["clipped"] += float(policy.clipped.sum())
                sums["tokens"] += len(micro.rollout_logprobs)
                if tokens.weights is not None:
                    sums["truncated"] += float((tokens.weights >= self.config.tis_cap).sum())

    def _in_step(self, groups: Sequence[SampleGroup], spare: SampleGroup) -> Iterator[tuple[MicroBatch, bool]]:
        """Micro-batches, as many on every rank, and whether each counts: those of the spare group fill up the number.

        A rank that made fewer passes than the others would leave them waiting for its shards for ever.
        """
        parts = cut(groups, self._encode, self.config.tokens_per_micro_batch)
        for i in range(self.ranks.all_reduce_max(len(parts))):
            counts = i < len(parts)
            yield MicroBatch.of(parts[i] if counts else [spare], self._encode), counts

    def _loss_inputs(
        self, micro: MicroBatch, values: dict[int, np.ndarray], old: dict[int, torch.Tensor] | None
    ) -> LossInputs:
        """A micro-batch's tokens under the present policy, with the truncated correction where the old one is ours.

        Truncated importance sampling (Yao et al., Your Efficient RL Framework Secretly Brings You Off-Policy RL
        Training, 2025): the weight old policy / engine, at most ``tis_cap``.
        """
        rollout_logprobs = micro.rollout_logprobs.to(self.device)
        before = rollout_logprobs if old is None else torch.cat([old[g.group_id] for g in micro.groups]).to(self.device)
        return LossInputs(
            logprobs=self._forward(self.policy, micro),
            old_logprobs=before,
            sample=micro.row.sample.to(self.device),
            advantages=micro.per_sample(values).to(self.device),
            weights=None if old is None else (before - rollout_logprobs).exp().clamp(max=self.config.tis_cap),
        )

    def _policy(self, model: nn.Module) -> RowLogprobs:
        """A model as what gives log-probs of rows, in shards where there are other ranks."""
        policy = RowLogprobs(model, self.banned, self.temperature)
        if self.ranks.size > 1:
            shard(policy, model, self.ranks.size, getattr(torch, self.model_config.dtype))
        return policy

    def _forward(self, policy: nn.Module, micro: MicroBatch) -> torch.Tensor:
        with computation(self.model_config, self.device):
            return policy(micro.row)

    def _reference_logprobs(self, micro: MicroBatch) -> torch.Tensor:
        with torch.no_grad():
            if self.reference is not None:
                return self._forward(self.reference, micro)
            with self.model.disable_adapter():
                return self._forward(self.policy, micro)

    def _frozen_copy(self, folder: Path, seed: int) -> nn.Module:
        return self._policy(load_model(self.model_config, folder, self.device, seed).eval().requires_grad_(False))

    def _outgoing(self) -> tuple[Iterable[tuple[str, torch.Tensor]], dict[str, Any] | None]:
        """What goes to the engines by name, perhaps in shards, and its configuration where it is an adapter."""
        lora = self.model_config.lora
        if lora is None:
            dtype = getattr(torch, self.model_config.dtype)
            return ((n, p.detach().to(dtype)) for n, p in self.model.named_parameters()), None
        if lora.targets == "language":
            return get_peft_model_state_dict(self.model).items(), engine_adapter_config(lora)
        return self._merged(), None

    def _merged(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Weights that the adapter changes, merged, under the base model's names."""
        prefix = "base_model.model."
        with gathered(self.policy):
            for name, module in self.model.named_modules():
                if hasattr(module, "get_delta_weight"):
                    weight = module.base_layer.weight
                    merged = weight.detach() + module.get_delta_weight("default").detach().to(weight.dtype)
                    yield f"{name.removeprefix(prefix)}.weight", merged

    def _set_lr(self) -> float:
        done = self.version
        scale = min(1.0, (done + 1) / self.config.warmup_steps) if self.config.warmup_steps else 1.0
        if self.config.decay:
            scale *= 1.0 - 0.9 * min(1.0, done / max(self.total_steps, 1))
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.lr * scale
        return self.config.lr * scale


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    """All of a tensor as it now is, in main memory."""
    found = full_tensor(tensor)
    return found.cpu() if found.device.type != "cpu" else found.clone()
