"""The GRPO learner: policy updates from scored groups, and export of the weights."""

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
from geovlm_ray.learner.micro_batches import MicroBatch, split_into_micro_batches
from geovlm_ray.learner.objectives import OBJECTIVES, advantages
from geovlm_ray.learner.ranks import SINGLE_PROCESS, Ranks
from geovlm_ray.model.config import ModelConfig
from geovlm_ray.model.forward import base_model
from geovlm_ray.model.loading import (
    autocast_context,
    engine_adapter_config,
    load_model,
    load_state,
    restore_policy,
    save_policy,
    save_state,
)
from geovlm_ray.model.prompts import PromptEncoder, banned_token_ids
from geovlm_ray.model.sharding import full_tensor, shard, shard_like, unsharded_params
from geovlm_ray.model.shared_prefix import RowLogprobs
from geovlm_ray.transport.buckets import WeightBucket, pack

PROMPT_CACHE_SIZE = 512
SUMMED_METRICS = ("policy", "kl", "clipped", "truncated", "kl_to_sampler", "tokens")


class GrpoLearner:
    """A policy under training, its optimizer, and the weight version, which only the learner increments.

    With several ranks, each process has a learner. All make the same calls with the same groups, train on their own
    shard of the groups, and return the same results.
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
        self.policy = self._logprob_module(self.model)
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
        self._encode = lru_cache(maxsize=PROMPT_CACHE_SIZE)(encoder.encode)

    def step(self, groups: Sequence[SampleGroup]) -> dict[str, float]:
        """Update on one batch in ``mini_batches`` optimizer steps; increments the weight version by one.

        Groups with all-zero advantages are skipped unless the KL penalty needs them; they still count in the mean.

        Raises:
            ValueError: no groups, a group without rewards, or a gradient norm that is not finite.
        """
        if not groups:
            raise ValueError("expected at least one group, found none")
        values = {g.group_id: advantages(g, self.config, self.max_completion_tokens) for g in groups}
        bounds = np.linspace(0, len(groups), self.config.mini_batches + 1).round().astype(int)
        batches = [groups[start:end] for start, end in itertools.pairwise(bounds) if end > start]
        old = self._old_logprobs([g for batch in batches for g in self.ranks.shard(batch)], groups[0])
        sums = dict.fromkeys(SUMMED_METRICS, 0.0)
        grad_norms = []
        lr = self._set_lr()
        for batch in batches:
            self._accumulate(batch, values, old, sums)
            norm = nn.utils.clip_grad_norm_(self.trained.values(), self.config.max_grad_norm)
            grad_norms.append(float(full_tensor(norm)))
            if not np.isfinite(grad_norms[-1]):
                raise ValueError(f"version {self.version}: expected a finite gradient norm, found {grad_norms[-1]}")
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
        """Log-probs of every sample's tokens under the current policy, in order; one [T] array per sample."""
        rows: list[np.ndarray] = []
        with torch.no_grad():
            for part in split_into_micro_batches(groups, self._encode, self.config.tokens_per_micro_batch):
                micro = MicroBatch.of(part, self._encode)
                rows.extend(row.numpy() for row in self._forward(self.policy, micro).cpu().split(micro.lengths))
        return rows

    def weights(self) -> Iterator[WeightBucket]:
        """The current weights as engines load them: a LoRA adapter, or model weights with any adapter merged.

        Only rank 0 yields buckets; the other ranks must exhaust the iterator too, because gathering is collective.
        """
        tensors, adapter = self._export_tensors()
        full_tensors = ((name, full_tensor(tensor)) for name, tensor in tensors)
        if self.ranks.rank == 0:
            yield from pack(self.version, full_tensors, adapter)
        else:
            deque(full_tensors, maxlen=0)

    def save(self, folder: Path) -> None:
        """Copy model or adapter and optimizer state, and start writing them in the background on rank 0.

        Training continues meanwhile; `saved` tells when the write is complete.
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
        """Whether the last `save` is complete.

        Raises:
            OSError: writing failed.
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
        """Do nothing: the process frees the learner's resources when it exits."""

    def load(self, folder: Path) -> None:
        """Restore the state that `save` wrote; the number of ranks may differ."""
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

    def _old_logprobs(self, groups: Sequence[SampleGroup], filler: SampleGroup) -> dict[int, torch.Tensor] | None:
        """The learner's log-probs before the step, keyed by group id; None if the engine's are used."""
        if self.config.old_logprobs == "engine":
            return None
        logprobs: dict[int, torch.Tensor] = {}
        with torch.no_grad():
            for micro, _ in self._synced_micro_batches(groups, filler):
                lengths = [sum(len(s.token_ids) for s in g.samples) for g in micro.groups]
                rows = self._forward(self.policy, micro).split(lengths)
                logprobs |= {g.group_id: row for g, row in zip(micro.groups, rows, strict=True)}
        return logprobs

    def _accumulate(
        self,
        batch: Sequence[SampleGroup],
        values: dict[int, np.ndarray],
        old: dict[int, torch.Tensor] | None,
        sums: dict[str, float],
    ) -> None:
        """Accumulate the gradient and metric sums of one optimizer step over this rank's shard of a batch."""
        lengths = [len(s.token_ids) for g in batch for s in g.samples]
        size = BatchSize(len(lengths), sum(lengths), self.max_completion_tokens)
        objective = OBJECTIVES[self.config.objective]
        clip = Clip(self.config.clip_low, self.config.clip_high)
        useful = [g for g in self.ranks.shard(batch) if self.config.kl_beta or np.any(values[g.group_id])]
        for micro, is_real in self._synced_micro_batches(useful, batch[0]):
            tokens = self._loss_inputs(micro, values, old if is_real else None)
            policy = objective.loss(tokens, clip, size)
            loss = policy.loss
            if self.config.kl_beta:
                kl = kl_penalty(tokens, self._reference_logprobs(micro), size, objective.kl_aggregation)
                loss = loss + self.config.kl_beta * kl
                sums["kl"] += float(kl.detach()) * is_real
            # FSDP averages gradients over the ranks; the factor turns the mean into the sum.
            (loss * self.ranks.size * is_real).backward()
            if not is_real:
                continue
            with torch.no_grad():
                drift = tokens.logprobs - micro.rollout_logprobs.to(self.device)
                sums["kl_to_sampler"] += float((drift.exp() - 1 - drift).sum())
                sums["policy"] += float(policy.loss)
                sums["clipped"] += float(policy.clipped.sum())
                sums["tokens"] += len(micro.rollout_logprobs)
                if tokens.weights is not None:
                    sums["truncated"] += float((tokens.weights >= self.config.tis_cap).sum())

    def _synced_micro_batches(
        self, groups: Sequence[SampleGroup], filler: SampleGroup
    ) -> Iterator[tuple[MicroBatch, bool]]:
        """Yield the same number of micro-batches on every rank, each with False if it is padding (``filler``).

        A rank with fewer forward passes would block the others, which wait for its shards at every layer.
        """
        parts = split_into_micro_batches(groups, self._encode, self.config.tokens_per_micro_batch)
        for i in range(self.ranks.all_reduce_max(len(parts))):
            is_real = i < len(parts)
            yield MicroBatch.of(parts[i] if is_real else [filler], self._encode), is_real

    def _loss_inputs(
        self, micro: MicroBatch, values: dict[int, np.ndarray], old: dict[int, torch.Tensor] | None
    ) -> LossInputs:
        """Loss inputs of a micro-batch under the current policy.

        If ``old`` has the learner's log-probs, ``weights`` are truncated importance weights old policy / engine, at
        most ``tis_cap`` (Yao et al., Your Efficient RL Framework Secretly Brings You Off-Policy RL Training, 2025).
        """
        rollout_logprobs = micro.rollout_logprobs.to(self.device)
        old_logprobs = rollout_logprobs
        if old is not None:
            old_logprobs = torch.cat([old[g.group_id] for g in micro.groups]).to(self.device)
        return LossInputs(
            logprobs=self._forward(self.policy, micro),
            old_logprobs=old_logprobs,
            sample=micro.row.sample.to(self.device),
            advantages=micro.per_sample(values).to(self.device),
            weights=None if old is None else (old_logprobs - rollout_logprobs).exp().clamp(max=self.config.tis_cap),
        )

    def _logprob_module(self, model: nn.Module) -> RowLogprobs:
        """Wrap a model in a module that returns log-probs of rows; sharded if there are several ranks."""
        policy = RowLogprobs(model, self.banned, self.temperature)
        if self.ranks.size > 1:
            shard(policy, model, self.ranks.size, getattr(torch, self.model_config.dtype))
        return policy

    def _forward(self, policy: nn.Module, micro: MicroBatch) -> torch.Tensor:
        with autocast_context(self.model_config, self.device):
            return policy(micro.row)

    def _reference_logprobs(self, micro: MicroBatch) -> torch.Tensor:
        with torch.no_grad():
            if self.reference is not None:
                return self._forward(self.reference, micro)
            with self.model.disable_adapter():
                return self._forward(self.policy, micro)

    def _frozen_copy(self, folder: Path, seed: int) -> nn.Module:
        model = load_model(self.model_config, folder, self.device, seed).eval().requires_grad_(False)
        return self._logprob_module(model)

    def _export_tensors(self) -> tuple[Iterable[tuple[str, torch.Tensor]], dict[str, Any] | None]:
        """Named tensors for the engines, possibly sharded, and the PEFT configuration if they are a LoRA adapter."""
        lora = self.model_config.lora
        if lora is None:
            dtype = getattr(torch, self.model_config.dtype)
            return ((n, p.detach().to(dtype)) for n, p in self.model.named_parameters()), None
        if lora.targets == "language":
            return get_peft_model_state_dict(self.model).items(), engine_adapter_config(lora)
        return self._merged(), None

    def _merged(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Merged weights of all layers with an adapter, under the base model's parameter names."""
        prefix = "base_model.model."
        with unsharded_params(self.policy):
            for name, module in self.model.named_modules():
                if hasattr(module, "get_delta_weight"):
                    weight = module.base_layer.weight
                    merged = weight.detach() + module.get_delta_weight("default").detach().to(weight.dtype)
                    yield f"{name.removeprefix(prefix)}.weight", merged

    def _set_lr(self) -> float:
        step = self.version
        scale = min(1.0, (step + 1) / self.config.warmup_steps) if self.config.warmup_steps else 1.0
        if self.config.decay:
            scale *= 1.0 - 0.9 * min(1.0, step / max(self.total_steps, 1))
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.lr * scale
        return self.config.lr * scale


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    """A copy of the full tensor in CPU memory."""
    full = full_tensor(tensor)
    return full.cpu() if full.device.type != "cpu" else full.clone()
