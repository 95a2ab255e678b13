"""A policy being trained: weights, optimizers, learning-rate schedule and checkpoints, on one rank or several."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers import ProcessorMixin

from geovlm_ray.learner.ranks import SINGLE_PROCESS, Ranks
from geovlm_ray.model.config import ModelConfig
from geovlm_ray.model.families import base_model, family_of
from geovlm_ray.model.loading import autocast_context, load_state, restore_policy, save_policy, save_state
from geovlm_ray.model.logprobs import RowLogprobs, TokenScore, token_logprobs
from geovlm_ray.model.rows import GroupRow
from geovlm_ray.model.sharding import full_tensor, shard, shard_like

STATE_FILE = "learner.pt"
NamedParameters = Mapping[str, nn.Parameter]


class TrainedPolicy:
    """The policy of SFT and GRPO. All ranks must make the same calls in the same order.

    ``steps`` counts the completed steps; token ids ``banned`` get probability 0. ``optimizers`` creates the optimizers
    of the trainable parameters, and ``schedule`` scales their learning rates.
    """

    def __init__(
        self,
        model: nn.Module,
        processor: ProcessorMixin,
        config: ModelConfig,
        optimizers: Callable[[NamedParameters], Sequence[Optimizer]],
        schedule: Callable[[int], float],
        *,
        banned: Sequence[int] = (),
        temperature: float = 1.0,
        gradient_checkpointing: bool = False,
        ranks: Ranks = SINGLE_PROCESS,
    ) -> None:
        self.model = model
        self.processor = processor
        self.model_config = config
        self.banned = torch.tensor(banned, dtype=torch.long)
        self.temperature = temperature
        self.ranks = ranks
        self.device = base_model(model).device
        self.steps = 0
        if gradient_checkpointing:
            base_model(model).gradient_checkpointing_enable({"use_reentrant": False})
        self.row_logprobs = self.sharded(model)
        family = family_of(model)
        self.trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        vision = {name for name in self.trained if family.is_vision(name)}
        self.parts = {
            part: [p for name, p in self.trained.items() if (name in vision) == is_vision]
            for part, is_vision in (("vision", True), ("language", False))
        }
        self.optimizers = optimizers(self.trained)
        self._schedule = schedule
        self._resume_schedule()
        self._writer = ThreadPoolExecutor(1)
        self._written: Future[None] | None = None

    def sharded(self, model: nn.Module) -> RowLogprobs:
        """A module that computes log-probs of rows with a model of this architecture, sharded over several ranks."""
        dtype = getattr(torch, self.model_config.dtype)
        module = RowLogprobs(model, self.banned, self.temperature, dtype if self.model_config.fp32_head else None)
        if self.ranks.size > 1:
            shard(module, model, self.ranks.size, dtype)
        return module

    def scores(
        self, row: GroupRow, score: TokenScore = token_logprobs, module: nn.Module | None = None
    ) -> torch.Tensor:
        """Log-probs or other scores of a row's N tokens, by the policy or another module of `sharded`."""
        with autocast_context(self.model_config, self.device):
            return (module or self.row_logprobs)(row, score)

    def backward(self, loss: torch.Tensor, is_real: bool = True) -> None:
        """Accumulate the gradient of this rank's part of the loss, a sum over ranks; padding contributes 0."""
        # FSDP averages gradients over the ranks; the factor turns the mean into the sum.
        (loss * self.ranks.size * is_real).backward()

    def clip_gradient(self, max_norm: float) -> dict[str, float]:
        """Clip the gradient of all ranks together; returns its norm before, and those of its parts, as metrics."""
        norms = {f"grad_norm/{part}": _grad_norm(parameters) for part, parameters in self.parts.items() if parameters}
        return {"grad_norm": float(full_tensor(nn.utils.clip_grad_norm_(self.trained.values(), max_norm))), **norms}

    def update(self) -> None:
        """One optimizer step at the current learning rate; clears the gradient."""
        for optimizer in self.optimizers:
            optimizer.step()
        self.zero_grad()

    def zero_grad(self) -> None:
        """Clear the gradient."""
        for optimizer in self.optimizers:
            optimizer.zero_grad()

    @property
    def lr(self) -> float:
        """Learning rate of the current step."""
        return self._schedulers[0].get_last_lr()[0]

    def finish_step(self) -> None:
        """Count a step, of one or several updates, and move the learning rate on."""
        self.steps += 1
        for scheduler in self._schedulers:
            scheduler.step()

    def _resume_schedule(self) -> None:
        """Set the learning rate of the current step."""
        self._schedulers = [LambdaLR(o, self._schedule, last_epoch=self.steps - 1) for o in self.optimizers]

    def save(self, folder: Path) -> None:
        """Copy model or adapter and optimizer state, and start writing them in the background on rank 0.

        Training continues meanwhile; `saved` tells when the write is complete.
        """
        # An adapter is saved alone, a model whole: with those of its parameters that are frozen.
        saved = self.trained if self.model_config.lora else dict(self.model.named_parameters())
        weights = {name: _copy(p.detach()) for name, p in saved.items()}
        optimizer = {
            name: {key: _copy(value) for key, value in o.state[p].items()}
            for o in self.optimizers
            for name, p in self.trained.items()
            if p in o.state
        }
        if self.ranks.rank == 0:
            state = {"optimizer": optimizer, "version": self.steps, "rng": torch.get_rng_state()}
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
        save_policy(self.model, self.processor, folder, weights)
        save_state(state, folder / STATE_FILE)

    def load(self, folder: Path) -> None:
        """Restore the state that `save` wrote; the number of ranks may differ."""
        state = load_state(folder / STATE_FILE)
        restore_policy(self.model, self.model_config, folder)
        by_parameter = {id(p): o for o in self.optimizers for group in o.param_groups for p in group["params"]}
        for name, values in state["optimizer"].items():
            parameter = self.trained[name]
            by_parameter[id(parameter)].state[parameter] = {
                key: shard_like(parameter, value) if value.shape == parameter.shape else value
                for key, value in values.items()
            }
        self.steps = state["version"]
        self._resume_schedule()
        torch.set_rng_state(state["rng"])


def _grad_norm(parameters: Sequence[nn.Parameter]) -> float:
    """Norm of the gradient of some parameters."""
    return float(full_tensor(nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])))


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    """A copy of the full tensor in CPU memory."""
    full = full_tensor(tensor)
    return full.cpu() if full.device.type != "cpu" else full.clone()
