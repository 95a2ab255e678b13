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

from geovlm_ray.core.errors import DataError, PartialStepError, RunError, reason_of
from geovlm_ray.core.schema import Example, Prompt, SampleGroup
from geovlm_ray.learner.batch_advantages import batch_advantages
from geovlm_ray.learner.config import LearnerConfig
from geovlm_ray.learner.importance import importance_weights
from geovlm_ray.learner.kl import kl_values
from geovlm_ray.learner.loss_inputs import BatchSize, LossInputs
from geovlm_ray.learner.micro_batches import MicroBatch, split_into_micro_batches
from geovlm_ray.learner.objectives import OBJECTIVES
from geovlm_ray.learner.ranks import SINGLE_PROCESS, Ranks
from geovlm_ray.learner.schedules import schedule
from geovlm_ray.learner.trained_policy import NamedParameters, TrainedPolicy
from geovlm_ray.model.config import ModelConfig
from geovlm_ray.model.loading import engine_adapter_config, load_model
from geovlm_ray.model.logprobs import RowLogprobs, logprobs_and_entropy
from geovlm_ray.model.prompts import EncodedPrompt, PromptEncoder, banned_token_ids
from geovlm_ray.model.sharding import full_tensor, unsharded_params
from geovlm_ray.transport.base import Transport, WeightUpdate, transport_errors

OTHER_PROMPTS = 64
"""Encoded prompts that are kept beside those of a step and the next: of the parity check, and replacements."""
MAX_NAMED = 8
"""Records of a failed batch that its error names."""
SUMMED_METRICS = (
    "policy",
    "kl",
    "clipped_low",
    "clipped_high",
    "clipped_dual",
    "importance",
    "kl_to_sampler",
    "tokens",
)
Logprobs = dict[int, torch.Tensor]
"""Log-probs of a group's tokens, [tokens], keyed by group id."""


class GrpoLearner(TrainedPolicy):
    """The policy under reinforcement learning; only the learner increments the weight version.

    With several ranks, each process has a learner. All make the same calls with the same groups, train on their own
    shard of the groups, and return the same results. One that ``shares_gpu`` with an engine, of which one sleeps while
    the other works, gives back the memory that it does not keep.
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
        shares_gpu: bool = False,
        prompts_per_step: int = 256,
        ranks: Ranks = SINGLE_PROCESS,
    ) -> None:
        torch.set_num_threads(config.threads)
        self.config = config
        self.encoder = encoder
        self.max_completion_tokens = max_completion_tokens
        self.transport = transport
        device = torch.device("cuda" if torch.cuda.is_available() and on_gpu else "cpu")
        model = load_model(model_config, folder, device, seed, ranks.shard_rank(model_config)).train()
        super().__init__(
            model,
            encoder.processor,
            model_config,
            self._optimizers,
            schedule(config.lr_decay, config.warmup_steps, total_steps, config.lr_end),
            device,
            banned=banned_token_ids(encoder.processor, model.config.get_text_config().vocab_size),
            temperature=temperature,
            gradient_checkpointing=config.gradient_checkpointing,
            ranks=ranks,
        )
        self.reference = self._frozen_copy(folder, seed) if config.needs_reference and not model_config.lora else None
        self._shares_gpu = shares_gpu and device.type == "cuda"
        self._encoder_thread = ThreadPoolExecutor(1)
        self._encoded = lru_cache(maxsize=2 * prompts_per_step + OTHER_PROMPTS)(self._start_encoding)

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

    def problems(self, prompts: Sequence[Prompt]) -> dict[int, str]:
        """Why prompts cannot be encoded, keyed by group id; waits for the encoding of all."""
        found = {}
        for prompt in prompts:
            self._encoded(prompt.example, prompt.prefill)
        for prompt in prompts:
            try:
                self.encode(prompt)
            except DataError as error:
                found[prompt.group_id] = str(error)
        return found

    def step(self, groups: Sequence[SampleGroup], upcoming: Sequence[Prompt] = ()) -> dict[str, float]:
        """Update on one batch in ``mini_batches`` optimizer steps; increments the weight version by one.

        Groups with all-zero advantages are skipped unless a KL penalty or a metric needs them; they still count in the
        mean. ``upcoming`` are prompts of the next step, which are encoded in the background.

        Raises:
            ValueError: no groups, or a group without rewards.
            RunError: a gradient norm is not finite; the weights are unchanged.
            PartialStepError: this or any other error, after earlier mini-batches of the step changed the weights.
        """
        if not groups:
            raise ValueError("expected at least one group, found none")
        for prompt in (*(group.prompt for group in groups), *upcoming):
            self._encoded(prompt.example, prompt.prefill)
        bounds = np.linspace(0, len(groups), self.config.mini_batches + 1).round().astype(int)
        batches = [groups[start:end] for start, end in itertools.pairwise(bounds) if end > start]
        shard = [group for batch in batches for group in self.ranks.shard(batch)]
        old = self._old_logprobs(shard, groups[0])
        kl = self._completion_kl(groups, shard, old)
        values = batch_advantages(groups, self.config, self.max_completion_tokens, kl)
        sums = dict.fromkeys(SUMMED_METRICS, 0.0)
        if self.config.exact_entropy:
            tasks = {group.prompt.example.task for group in groups}
            sums |= {f"{name}/{task}": 0.0 for task in sorted(tasks) for name in ("entropy", "tokens")}
        norms = []
        lr = self.lr
        for batch in batches:
            try:
                norms.append(self._update_on(batch, values, old, sums))
            except Exception as error:
                if not norms:
                    raise
                raise PartialStepError(reason_of(error)) from error
        self.finish_step()
        self._give_back_memory()
        return {
            **_metrics(self.ranks.all_reduce_sum(sums), len(batches)),
            **{name: float(np.mean([norm[name] for norm in norms])) for name in norms[0]},
            "lr": lr,
        }

    def _update_on(
        self, batch: Sequence[SampleGroup], values: dict[int, np.ndarray], old: Logprobs | None, sums: dict[str, float]
    ) -> dict[str, float]:
        """One optimizer step on a mini-batch; returns the gradient norms."""
        self._accumulate(batch, values, old, sums)
        norms = self.clip_gradient(self.config.max_grad_norm)
        if not np.isfinite(norms["grad_norm"]):
            self.zero_grad()
            ids = ", ".join(repr(group.prompt.example.id) for group in batch[:MAX_NAMED])
            raise RunError(
                f"step {self.steps + 1}: expected a finite gradient norm, found {norms['grad_norm']} on the records "
                f"{ids}; lower learner.lr, or inspect the records"
            )
        self.update()
        return norms

    def logprobs(self, groups: Sequence[SampleGroup]) -> list[np.ndarray]:
        """Log-probs of each sample's tokens that the policy wrote, under the current weights, [samples][T]."""
        rows: list[np.ndarray] = []
        with torch.no_grad():
            for part in split_into_micro_batches(groups, self.encode, self.config.tokens_per_micro_batch):
                micro = MicroBatch.of(part, self.encode, self.encoder)
                rows.extend(row.numpy() for row in self.scores(micro.row).cpu().split(micro.lengths))
        self._give_back_memory()
        return rows

    def weights(self, endpoints: Sequence[Any]) -> Iterator[Any]:
        """Chunks of the current weights as engines load them: a LoRA adapter, or weights with any adapter merged.

        ``endpoints`` are those of the engines.

        Every rank must exhaust the iterator, because gathering the weights is collective.
        """
        tensors, adapter = self._export_tensors()
        full_tensors = ((name, full_tensor(tensor)) for name, tensor in tensors)
        with transport_errors(self.transport, "send weights"):
            update = WeightUpdate(self.version, full_tensors, adapter)
            yield from self.transport.send(update, self.ranks.rank, self.ranks.size, endpoints)

    def _give_back_memory(self) -> None:
        if self._shares_gpu:
            torch.cuda.empty_cache()

    def close(self) -> None:
        """Do nothing: the process frees the learner's resources when it exits."""

    def _old_logprobs(self, groups: Sequence[SampleGroup], filler: SampleGroup) -> Logprobs | None:
        """The learner's log-probs before the step; None if the engine's are used."""
        if self.config.old_logprobs == "engine":
            return None
        return {
            group_id: row
            for micro, _ in self._synced_micro_batches(groups, filler)
            for group_id, row in micro.per_group(self._scores_without_gradient(micro)).items()
        }

    def _completion_kl(
        self, groups: Sequence[SampleGroup], shard: Sequence[SampleGroup], old: Logprobs | None
    ) -> dict[int, np.ndarray] | None:
        """KL to the reference policy of each completion of all ranks, [G]; None if the reward has no KL penalty."""
        if not self.config.kl_beta or self.config.kl_in_loss:
            return None
        sums = {f"{g.group_id} {i}": 0.0 for g in groups for i in range(len(g.samples))}
        for micro, is_real in self._synced_micro_batches(shard, groups[0]):
            reference = self._reference_logprobs(micro)
            if is_real:
                values = kl_values(self._old(micro, old), reference, self.config.kl_estimator)
                per_sample = values.new_zeros(len(micro.lengths)).index_add(0, micro.row.sample.to(self.device), values)
                keys = [f"{g.group_id} {i}" for g in micro.groups for i in range(len(g.samples))]
                sums |= dict(zip(keys, per_sample.tolist(), strict=True))
        sums = self.ranks.all_reduce_sum(sums)
        return {g.group_id: np.array([sums[f"{g.group_id} {i}"] for i in range(len(g.samples))]) for g in groups}

    def _accumulate(
        self,
        batch: Sequence[SampleGroup],
        values: dict[int, np.ndarray],
        old: Logprobs | None,
        sums: dict[str, float],
    ) -> None:
        """Accumulate the gradient and metric sums of one optimizer step over this rank's shard of a batch."""
        config, objective = self.config, OBJECTIVES[self.config.objective]
        lengths = [len(s.policy_logprobs) for g in batch for s in g.samples]
        size = BatchSize(len(lengths), sum(lengths), self.max_completion_tokens)
        all_groups = config.needs_reference or config.exact_entropy
        useful = [g for g in self.ranks.shard(batch) if all_groups or np.any(values[g.group_id])]
        for micro, is_real in self._synced_micro_batches(useful, batch[0]):
            logprobs, entropy = self._logprobs_and_entropy(micro)
            old_logprobs = self._old(micro, old if is_real else None)
            advantages = micro.per_sample(values).to(self.device)
            inputs = LossInputs(logprobs, old_logprobs, micro.row.sample.to(self.device), advantages)
            weights, out_of_bounds = self._importance_weights(micro, inputs)
            policy, surrogate = objective.loss(inputs, config.clip, size, weights)
            loss = policy
            if config.needs_reference:
                policy_logprobs = logprobs if config.kl_in_loss else logprobs.detach()
                kl = kl_values(policy_logprobs, self._reference_logprobs(micro), config.kl_estimator)
                kl = inputs.aggregate(kl, size, objective.aggregation)
                loss = loss + config.kl_beta * kl if config.kl_in_loss else loss
                sums["kl"] += float(kl.detach()) * is_real
            if entropy is not None:
                loss = loss - config.entropy_bonus * inputs.aggregate(entropy, size, objective.aggregation)
            self.backward(loss, is_real)
            if not is_real:
                continue
            with torch.no_grad():
                drift = logprobs - micro.rollout_logprobs.to(self.device)
                sums["kl_to_sampler"] += float((drift.exp() - 1 - drift).sum())
                sums["policy"] += float(policy)
                sums["clipped_low"] += float(surrogate.clipped_low.sum())
                sums["clipped_high"] += float(surrogate.clipped_high.sum())
                sums["clipped_dual"] += float(surrogate.clipped_dual.sum())
                sums["importance"] += float(out_of_bounds.sum())
                sums["tokens"] += len(logprobs)
                if entropy is not None:
                    for group, row in zip(micro.groups, micro.per_group(entropy).values(), strict=True):
                        sums[f"entropy/{group.prompt.example.task}"] += float(row.sum())
                        sums[f"tokens/{group.prompt.example.task}"] += len(row)

    def _synced_micro_batches(
        self, groups: Sequence[SampleGroup], filler: SampleGroup
    ) -> Iterator[tuple[MicroBatch, bool]]:
        """Micro-batches of groups, then of ``filler`` until every rank has the same number; False marks the padding."""
        parts = split_into_micro_batches(groups, self.encode, self.config.tokens_per_micro_batch)
        for part, is_real in self.ranks.padded(parts, [filler]):
            yield MicroBatch.of(part, self.encode, self.encoder), is_real

    def _logprobs_and_entropy(self, micro: MicroBatch) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Log-probs of the tokens under the current policy, and entropies if they are computed, [N]."""
        if not self.config.exact_entropy:
            return self.scores(micro.row), None
        logprobs, entropy = self.scores(micro.row, logprobs_and_entropy).unbind(1)
        return logprobs, entropy

    def _old(self, micro: MicroBatch, old: Logprobs | None) -> torch.Tensor:
        """Log-probs of the tokens under the old policy, [N]: the engine's if ``old`` is None."""
        if old is None:
            return micro.rollout_logprobs.to(self.device)
        return torch.cat([old[g.group_id] for g in micro.groups])

    def _importance_weights(self, micro: MicroBatch, inputs: LossInputs) -> tuple[torch.Tensor | float, torch.Tensor]:
        """Factors of the surrogate's tokens, [N], and a mask of those whose importance weight was out of bounds."""
        correction = self.config.importance_correction
        if correction is None:
            return 1.0, inputs.sample < 0
        in_ratio = self.config.old_logprobs == "engine"
        learner = inputs.logprobs.detach() if in_ratio else inputs.old_logprobs
        log_weight = learner - micro.rollout_logprobs.to(self.device)
        return importance_weights(correction, log_weight, inputs.sample, in_ratio=in_ratio)

    @torch.no_grad()
    def _scores_without_gradient(self, micro: MicroBatch) -> torch.Tensor:
        return self.scores(micro.row)

    @torch.no_grad()
    def _reference_logprobs(self, micro: MicroBatch) -> torch.Tensor:
        if self.reference is not None:
            return self.scores(micro.row, module=self.reference)
        with self.model.disable_adapter():
            return self.scores(micro.row)

    def _frozen_copy(self, folder: Path, seed: int) -> RowLogprobs:
        model = load_model(self.model_config, folder, self.device, seed, self.ranks.shard_rank(self.model_config))
        return self.sharded(model.eval().requires_grad_(False))

    def _export_tensors(self) -> tuple[Iterable[tuple[str, torch.Tensor]], dict[str, Any] | None]:
        """Named tensors for the engines, possibly sharded, and the PEFT configuration if they are a LoRA adapter."""
        lora = self.model_config.lora
        if lora is None:
            dtype = getattr(torch, self.model_config.dtype)
            parameters = self.model.named_parameters()
            family = self.family
            sent = ((n, p.detach().to(self.device, family.dtype_of(n, dtype))) for n, p in parameters)
            return ((n, family.in_files(n, tensor)) for n, tensor in sent), None
        if self.model_config.sends_adapter:
            return get_peft_model_state_dict(self.model).items(), engine_adapter_config(lora, self.family)
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


def _metrics(sums: dict[str, float], updates: int) -> dict[str, float]:
    """Metrics of a step from the sums over all ranks and optimizer steps."""
    tokens = max(sums["tokens"], 1.0)
    metrics = {
        "loss/policy": sums["policy"] / updates,
        "loss/kl": sums["kl"] / updates,
        "loss/clipped_low": sums["clipped_low"] / tokens,
        "loss/clipped_high": sums["clipped_high"] / tokens,
        "loss/clipped_dual": sums["clipped_dual"] / tokens,
        "loss/importance_out_of_bounds": sums["importance"] / tokens,
        "loss/kl_to_sampler": sums["kl_to_sampler"] / tokens,
        "learner/tokens": sums["tokens"],
    }
    tasks = [name.removeprefix("entropy/") for name in sums if name.startswith("entropy/")]
    if tasks:
        metrics["entropy/exact"] = sum(sums[f"entropy/{task}"] for task in tasks) / tokens
    return metrics | {
        f"task/{task}/entropy_exact": sums[f"entropy/{task}"] / max(sums[f"tokens/{task}"], 1.0) for task in tasks
    }
