"""The GRPO learner: policy updates from scored groups, and export of the weights."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import get_peft_model_state_dict

from geovlm_ray.core.schema import Example, Prompt, SampleGroup
from geovlm_ray.learner.config import LearnerConfig
from geovlm_ray.learner.loss_inputs import BatchSize, Clip, LossInputs, kl_penalty
from geovlm_ray.learner.micro_batches import MicroBatch, split_into_micro_batches
from geovlm_ray.learner.objectives import OBJECTIVES, advantages
from geovlm_ray.learner.ranks import SINGLE_PROCESS, Ranks
from geovlm_ray.learner.trained_policy import NamedParameters, TrainedPolicy, linear_schedule
from geovlm_ray.model.config import ModelConfig
from geovlm_ray.model.families import family_of
from geovlm_ray.model.loading import engine_adapter_config, load_model
from geovlm_ray.model.logprobs import RowLogprobs
from geovlm_ray.model.prompts import EncodedPrompt, PromptEncoder, banned_token_ids
from geovlm_ray.model.sharding import full_tensor, unsharded_params
from geovlm_ray.transport.base import Transport, WeightUpdate

PROMPT_CACHE_SIZE = 512
SUMMED_METRICS = ("policy", "kl", "clipped", "truncated", "kl_to_sampler", "tokens")


class GrpoLearner(TrainedPolicy):
    """The policy under reinforcement learning; only the learner increments the weight version.

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
        transport: Transport,
        on_gpu: bool = False,
        ranks: Ranks = SINGLE_PROCESS,
    ) -> None:
        torch.set_num_threads(config.threads)
        self.config = config
        self.encoder = encoder
        self.max_completion_tokens = max_completion_tokens
        self.transport = transport
        device = torch.device("cuda" if torch.cuda.is_available() and on_gpu else "cpu")
        model = load_model(model_config, folder, device, seed).train()
        super().__init__(
            model,
            encoder.processor,
            model_config,
            self._optimizers,
            linear_schedule(config.warmup_steps, total_steps, final=0.1 if config.decay else 1.0),
            banned=banned_token_ids(encoder.processor, model.config.get_text_config().vocab_size),
            temperature=temperature,
            gradient_checkpointing=config.gradient_checkpointing,
            ranks=ranks,
        )
        self.reference = self._frozen_copy(folder, seed) if config.kl_beta and not model_config.lora else None
        self._encoder_thread = ThreadPoolExecutor(1)
        self._encoded = lru_cache(maxsize=PROMPT_CACHE_SIZE)(self._start_encoding)

    @property
    def version(self) -> int:
        """The weight version: the number of completed steps."""
        return self.steps

    def _optimizers(self, trained: NamedParameters) -> list[torch.optim.Optimizer]:
        config = self.config
        betas = (config.beta1, config.beta2)
        return [
            torch.optim.AdamW(trained.values(), lr=config.lr, betas=betas, weight_decay=config.weight_decay, fused=True)
        ]

    def _start_encoding(self, example: Example, prefill: str) -> Future[EncodedPrompt]:
        return self._encoder_thread.submit(self.encoder.encode, example, prefill)

    def encode(self, prompt: Prompt) -> EncodedPrompt:
        """Model input tensors of a prompt; waits for them if they are being encoded in the background.

        Raises:
            DataError: an image is missing or cannot be decoded.
        """
        return self._encoded(prompt.example, prompt.prefill).result()

    def step(self, groups: Sequence[SampleGroup], upcoming: Sequence[Prompt] = ()) -> dict[str, float]:
        """Update on one batch in ``mini_batches`` optimizer steps; increments the weight version by one.

        Groups with all-zero advantages are skipped unless the KL penalty needs them; they still count in the mean.
        ``upcoming`` are prompts of the next step, which are encoded in the background.

        Raises:
            ValueError: no groups, a group without rewards, or a gradient norm that is not finite.
        """
        if not groups:
            raise ValueError("expected at least one group, found none")
        for prompt in (*(group.prompt for group in groups), *upcoming):
            self._encoded(prompt.example, prompt.prefill)
        values = {g.group_id: advantages(g, self.config, self.max_completion_tokens) for g in groups}
        bounds = np.linspace(0, len(groups), self.config.mini_batches + 1).round().astype(int)
        batches = [groups[start:end] for start, end in itertools.pairwise(bounds) if end > start]
        old = self._old_logprobs([g for batch in batches for g in self.ranks.shard(batch)], groups[0])
        sums = dict.fromkeys(SUMMED_METRICS, 0.0)
        grad_norms = []
        lr = self.lr
        for batch in batches:
            self._accumulate(batch, values, old, sums)
            grad_norms.append(self.clip_gradient(self.config.max_grad_norm))
            if not np.isfinite(grad_norms[-1]):
                raise ValueError(f"version {self.version}: expected a finite gradient norm, found {grad_norms[-1]}")
            self.update()
        sums = self.ranks.all_reduce_sum(sums)
        self.finish_step()
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
        """Log-probs of each sample's tokens that the policy wrote, under the current weights, [samples][T]."""
        rows: list[np.ndarray] = []
        with torch.no_grad():
            for part in split_into_micro_batches(groups, self.encode, self.config.tokens_per_micro_batch):
                micro = MicroBatch.of(part, self.encode, self.encoder)
                rows.extend(row.numpy() for row in self.scores(micro.row).cpu().split(micro.lengths))
        return rows

    def weights(self) -> Iterator[Any]:
        """Chunks of the current weights as engines load them: a LoRA adapter, or weights with any adapter merged.

        Every rank must exhaust the iterator, because gathering the weights is collective.
        """
        tensors, adapter = self._export_tensors()
        full_tensors = ((name, full_tensor(tensor)) for name, tensor in tensors)
        return self.transport.send(WeightUpdate(self.version, full_tensors, adapter), self.ranks.rank)

    def close(self) -> None:
        """Do nothing: the process frees the learner's resources when it exits."""

    def _old_logprobs(self, groups: Sequence[SampleGroup], filler: SampleGroup) -> dict[int, torch.Tensor] | None:
        """The learner's log-probs before the step, keyed by group id; None if the engine's are used."""
        if self.config.old_logprobs == "engine":
            return None
        logprobs: dict[int, torch.Tensor] = {}
        with torch.no_grad():
            for micro, _ in self._synced_micro_batches(groups, filler):
                lengths = [sum(len(s.policy_logprobs) for s in g.samples) for g in micro.groups]
                rows = self.scores(micro.row).split(lengths)
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
        lengths = [len(s.policy_logprobs) for g in batch for s in g.samples]
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
            self.backward(loss, is_real)
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
        """Micro-batches of groups, then of ``filler`` until every rank has the same number; False marks the padding."""
        parts = split_into_micro_batches(groups, self.encode, self.config.tokens_per_micro_batch)
        for part, is_real in self.ranks.padded(parts, [filler]):
            yield MicroBatch.of(part, self.encode, self.encoder), is_real

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
            logprobs=self.scores(micro.row),
            old_logprobs=old_logprobs,
            sample=micro.row.sample.to(self.device),
            advantages=micro.per_sample(values).to(self.device),
            weights=None if old is None else (old_logprobs - rollout_logprobs).exp().clamp(max=self.config.tis_cap),
        )

    def _reference_logprobs(self, micro: MicroBatch) -> torch.Tensor:
        with torch.no_grad():
            if self.reference is not None:
                return self.scores(micro.row, module=self.reference)
            with self.model.disable_adapter():
                return self.scores(micro.row)

    def _frozen_copy(self, folder: Path, seed: int) -> RowLogprobs:
        return self.sharded(load_model(self.model_config, folder, self.device, seed).eval().requires_grad_(False))

    def _export_tensors(self) -> tuple[Iterable[tuple[str, torch.Tensor]], dict[str, Any] | None]:
        """Named tensors for the engines, possibly sharded, and the PEFT configuration if they are a LoRA adapter."""
        lora = self.model_config.lora
        if lora is None:
            dtype = getattr(torch, self.model_config.dtype)
            return ((n, p.detach().to(dtype)) for n, p in self.model.named_parameters()), None
        if lora.targets == "language":
            return get_peft_model_state_dict(self.model).items(), engine_adapter_config(lora, family_of(self.model))
        return self._merged(), None

    def _merged(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Merged weights of all layers with an adapter, under the base model's parameter names."""
        prefix = "base_model.model."
        with unsharded_params(self.row_logprobs):
            for name, module in self.model.named_modules():
                if hasattr(module, "get_delta_weight"):
                    weight = module.base_layer.weight
                    merged = weight.detach() + module.get_delta_weight("default").detach().to(weight.dtype)
                    yield f"{name.removeprefix(prefix)}.weight", merged
