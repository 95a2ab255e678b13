"""The learner: one GRPO update from scored groups, and the weights that come of it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from peft import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file
from torch import nn

from geovlm_ray.grpo.advantages import group_advantages
from geovlm_ray.grpo.config import LearnerConfig
from geovlm_ray.grpo.loss import grpo_loss, kl_penalty
from geovlm_ray.policy.config import ModelConfig
from geovlm_ray.policy.forward import CompletionBatch, base_model, completion_logprobs
from geovlm_ray.policy.model import engine_adapter_config, load_model
from geovlm_ray.policy.prompts import PromptEncoder, banned_token_ids
from geovlm_ray.schema import SampleGroup
from geovlm_ray.sync.update import WeightUpdate

ENCODED_PROMPTS_KEPT = 512


class GrpoLearner:
    """A policy under training, its optimizer, and the version of its weights, which it alone raises."""

    def __init__(
        self,
        model_config: ModelConfig,
        folder: Path,
        encoder: PromptEncoder,
        config: LearnerConfig,
        *,
        temperature: float,
        total_steps: int,
        seed: int,
    ) -> None:
        torch.set_num_threads(config.threads)
        self.model_config = model_config
        self.config = config
        self.encoder = encoder
        self.temperature = temperature
        self.total_steps = total_steps
        self.version = 0
        self.device = torch.device("cuda" if torch.cuda.is_available() and config.num_gpus else "cpu")
        self.model = load_model(model_config, folder, self.device, seed)
        if config.gradient_checkpointing:
            base_model(self.model).model.visual.gradient_checkpointing_enable({"use_reentrant": False})
        self.model.train()
        vocabulary = self.model.config.get_text_config().vocab_size
        self.banned = torch.tensor(banned_token_ids(encoder.processor, vocabulary), dtype=torch.long)
        self.trained = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
        self.optimizer = torch.optim.AdamW(
            self.trained.values(), lr=config.lr, betas=(config.beta1, config.beta2), weight_decay=config.weight_decay
        )
        self.reference = self._frozen_copy(folder, seed) if config.kl_beta and not model_config.lora else None
        self._encode = lru_cache(maxsize=ENCODED_PROMPTS_KEPT)(encoder.encode)

    def step(self, groups: Sequence[SampleGroup]) -> dict[str, float]:
        """One batch: ``mini_batches`` optimizer steps over the groups; raises the version by one.

        Groups whose rewards are all equal carry no gradient and are passed over unless the KL term needs
        them; they count in the mean all the same.

        Raises:
            ValueError: no group, or a group without rewards.
        """
        if not groups:
            raise ValueError("a learner step needs at least one group, found none")
        advantages = {g.group_id: group_advantages(g.rewards) for g in groups}
        sums: dict[str, float] = {}
        grad_norms = []
        lr = self._set_lr()
        bounds = np.linspace(0, len(groups), self.config.mini_batches + 1).round().astype(int)
        for start, end in itertools.pairwise(bounds):
            part = groups[start:end]
            if not part:
                continue
            for name, value in self._accumulate(part, advantages).items():
                sums[name] = sums.get(name, 0.0) + value
            grad_norms.append(float(nn.utils.clip_grad_norm_(self.trained.values(), self.config.max_grad_norm)))
            if not np.isfinite(grad_norms[-1]):
                raise ValueError(f"the gradient of version {self.version} has norm {grad_norms[-1]}")
            self.optimizer.step()
            self.optimizer.zero_grad()
        self.version += 1
        tokens = max(sums["tokens"], 1.0)
        return {
            "loss/policy": sums["policy"] / len(grad_norms),
            "loss/kl": sums["kl"] / len(grad_norms),
            "loss/clipped_fraction": sums["clipped"] / tokens,
            "loss/kl_to_sampler": sums["kl_to_sampler"] / tokens,
            "learner/tokens": sums["tokens"],
            "grad_norm": float(np.mean(grad_norms)),
            "lr": lr,
        }

    def logprobs(self, groups: Sequence[SampleGroup]) -> list[np.ndarray]:
        """The policy's log-probs of every sample's tokens, in order, one [T] array a sample."""
        rows: list[np.ndarray] = []
        with torch.no_grad():
            for micro in self._micro_batches(groups):
                batch = self._batch(micro)
                values = self._forward(self.model, batch).cpu()
                rows.extend(v[m].numpy() for v, m in zip(values, batch.mask, strict=True))
        return rows

    def weights(self) -> WeightUpdate:
        """The present weights in the form that engines take: an adapter, or a model with any adapter merged."""
        lora = self.model_config.lora
        if lora is None:
            dtype = getattr(torch, self.model_config.dtype)
            named = {n: p.detach().to(dtype) for n, p in self.model.named_parameters()}
            return WeightUpdate.of(self.version, named)
        if lora.targets == "language":
            adapter = get_peft_model_state_dict(self.model)
            return WeightUpdate.of(self.version, adapter, engine_adapter_config(lora))
        return WeightUpdate.of(self.version, dict(self._merged()))

    def save(self, folder: Path) -> None:
        """Write the model or adapter as Hugging Face folders, and the optimizer's state."""
        self.model.save_pretrained(folder)
        self.encoder.processor.save_pretrained(folder)
        state = {"optimizer": self.optimizer.state_dict(), "version": self.version, "rng": torch.get_rng_state()}
        torch.save(state, folder / "learner.pt")

    def load(self, folder: Path) -> None:
        """Take up the state that `save` wrote."""
        state = torch.load(folder / "learner.pt", weights_only=True)
        if self.model_config.lora:
            set_peft_model_state_dict(self.model, load_file(folder / "adapter_model.safetensors"))
        else:
            saved = load_model(self.model_config, folder, self.device, seed=0)
            self.model.load_state_dict(saved.state_dict())
        self.optimizer.load_state_dict(state["optimizer"])
        self.version = state["version"]
        torch.set_rng_state(state["rng"])

    def _accumulate(self, groups: Sequence[SampleGroup], advantages: dict[int, np.ndarray]) -> dict[str, float]:
        """Add the gradient of one optimizer step; returns sums for the metrics."""
        n_samples = sum(len(g.samples) for g in groups)
        sums = dict.fromkeys(("policy", "kl", "clipped", "kl_to_sampler", "tokens"), 0.0)
        useful = [g for g in groups if self.config.kl_beta or np.any(advantages[g.group_id])]
        for micro in self._micro_batches(useful):
            batch = self._batch(micro)
            mask = batch.mask.to(self.device)
            old = nn.utils.rnn.pad_sequence(
                [torch.tensor(s.logprobs) for g in micro for s in g.samples], batch_first=True
            ).to(self.device)
            weight = torch.tensor(np.concatenate([advantages[g.group_id] for g in micro]), dtype=torch.float32)
            logprobs = self._forward(self.model, batch)
            policy = grpo_loss(
                logprobs,
                old,
                weight.to(self.device),
                mask,
                clip_low=self.config.clip_low,
                clip_high=self.config.clip_high,
            )
            loss = policy.loss / n_samples
            kl = torch.zeros((), device=self.device)
            if self.config.kl_beta:
                kl = kl_penalty(logprobs, self._reference_logprobs(batch), mask) / n_samples
                loss = loss + self.config.kl_beta * kl
            loss.backward()
            sums["policy"] += float(policy.loss.detach()) / n_samples
            sums["kl"] += float(kl.detach())
            sums["clipped"] += float(policy.clipped_tokens)
            sums["kl_to_sampler"] += float(policy.kl_to_sampler)
            sums["tokens"] += float(mask.sum())
        return sums

    def _forward(self, model: nn.Module, batch: CompletionBatch) -> torch.Tensor:
        autocast = self.model_config.dtype == "bfloat16" and self.model_config.lora is None
        with torch.autocast(self.device.type, torch.bfloat16, enabled=autocast):
            return completion_logprobs(model, batch, self.banned, self.temperature)

    def _reference_logprobs(self, batch: CompletionBatch) -> torch.Tensor:
        with torch.no_grad():
            if self.reference is not None:
                return self._forward(self.reference, batch)
            with self.model.disable_adapter():
                return self._forward(self.model, batch)

    def _micro_batches(self, groups: Sequence[SampleGroup]) -> Iterator[Sequence[SampleGroup]]:
        size = self.config.groups_per_micro_batch
        for start in range(0, len(groups), size):
            yield groups[start : start + size]

    def _batch(self, groups: Sequence[SampleGroup]) -> CompletionBatch:
        prompts = [self._encode(g.prompt.example) for g in groups]
        return CompletionBatch.of(prompts, [[s.token_ids for s in g.samples] for g in groups])

    def _frozen_copy(self, folder: Path, seed: int) -> nn.Module:
        return load_model(self.model_config, folder, self.device, seed).eval().requires_grad_(False)

    def _merged(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Weights that the adapter changes, merged, under the base model's names."""
        prefix = "base_model.model."
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
