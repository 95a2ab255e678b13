"""A policy being trained: weights, optimizers, learning-rate schedule and checkpoints, on one rank or several."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers import ProcessorMixin

from geovlm_ray.core.background import BackgroundWriter
from geovlm_ray.learner.ranks import SINGLE_PROCESS, Ranks
from geovlm_ray.model.config import ModelConfig
from geovlm_ray.model.families import base_model, family_of
from geovlm_ray.model.loading import (
    autocast_context,
    load_state,
    restore_adapter,
    save_adapter,
    save_description,
    save_state,
)
from geovlm_ray.model.logprobs import RowLogprobs, TokenScore, token_logprobs
from geovlm_ray.model.rows import GroupRow
from geovlm_ray.model.sharding import full_tensor, scattered, shard
from geovlm_ray.model.weight_files import TensorFiles, divide, file_names, open_tensors, write_index, write_tensors

STATE_FILE = "learner.pt"
MODEL, OPTIMIZER = "model", "optimizer"
"""Stems of the files that hold the weights and the optimizer's tensors.

Those of the optimizer are in a folder of their own: vLLM reads all safetensors files of a model folder.
"""
FILE_BYTES, MIN_FILE_BYTES = 2**31, 2**26
"""Size at which a file of a checkpoint is closed: a quarter of the weights, within these limits."""
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
        device: torch.device,
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
        self.device = device
        self.steps = 0
        if gradient_checkpointing:
            base_model(model).gradient_checkpointing_enable({"use_reentrant": False})
        self.row_logprobs = self.sharded(model)
        self.family = family_of(model)
        self.trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        vision = {name for name in self.trained if self.family.is_vision(name)}
        self.parts = {
            part: [p for name, p in self.trained.items() if (name in vision) == is_vision]
            for part, is_vision in (("vision", True), ("language", False))
        }
        self.optimizers = optimizers(self.trained)
        self._schedule = schedule
        self._resume_schedule()
        self._saved_bytes = sum(p.numel() * p.element_size() for p in self._saved_parameters().values())
        # With the part of a quarter that is being gathered, at most the weights are in host memory.
        self._writer = BackgroundWriter(self._saved_bytes * 3 // 4)

    def sharded(self, model: nn.Module) -> RowLogprobs:
        """A module that computes log-probs of rows with a model of this architecture, sharded over several ranks."""
        dtype = getattr(torch, self.model_config.dtype)
        module = RowLogprobs(model, self.banned, self.temperature, dtype if self.model_config.fp32_head else None)
        if self.ranks.shard_rank(self.model_config) is not None:
            self.ranks.ensure_group()
            shard(module, model, dtype, self.device, offload=self.model_config.offload)
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
        """Copy model or adapter and optimizer state to host memory of rank 0, part by part, and start writing them.

        Training continues meanwhile; `saved` tells when the write is complete. Parts that exceed the size of the
        model's weights are on disk before this returns.
        """
        states = {name: o.state[p] for o in self.optimizers for name, p in self.trained.items() if p in o.state}
        whole = {
            name: sorted(key for key, value in state.items() if value.shape == self.trained[name].shape)
            for name, state in states.items()
        }
        self._write(
            folder / OPTIMIZER, OPTIMIZER, {f"{name}.{key}": states[name][key] for name in whole for key in whole[name]}
        )
        saved = self._saved_parameters()
        if self.model_config.lora:
            weights = {name: self._copy(p, self.ranks.rank == 0) for name, p in saved.items()}
            describe = partial(save_adapter, self.model, self.processor, folder, weights)
        else:
            names = file_names(self.model)
            self._write(folder, MODEL, {names[n]: self.family.in_files(n, p.detach()) for n, p in saved.items()})
            describe = partial(save_description, self.model, self.processor, folder)
        if self.ranks.rank == 0:
            rest = {n: {k: v.clone() for k, v in state.items() if k not in whole[n]} for n, state in states.items()}
            state = {"optimizer": rest, "in_files": whole, "version": self.steps, "rng": torch.get_rng_state()}
            self._writer.submit(0, describe)
            self._writer.submit(0, partial(save_state, state, folder / STATE_FILE))

    def saved(self) -> bool:
        """Whether the last `save` is complete.

        Raises:
            OSError: writing failed.
        """
        return self._writer.done()

    def load(self, folder: Path) -> None:
        """Restore the state that `save` wrote; the number of ranks may differ.

        Raises:
            ModelError, RunError: a file is missing or corrupt.
        """
        state = load_state(folder / STATE_FILE)
        if self.model_config.lora:
            restore_adapter(self.model, folder)
        else:
            names = file_names(self.model)
            with open_tensors(folder, MODEL) as files:
                for name, parameter in self._saved_parameters().items():
                    stored = self.family.in_files(name, parameter.detach())
                    stored.copy_(self._read(files, names[name], stored))
        by_parameter = {id(p): o for o in self.optimizers for group in o.param_groups for p in group["params"]}
        with open_tensors(folder / OPTIMIZER, OPTIMIZER) as files:
            for name, values in state["optimizer"].items():
                parameter = self.trained[name]
                whole = {k: self._read(files, f"{name}.{k}", parameter) for k in state["in_files"][name]}
                by_parameter[id(parameter)].state[parameter] = on_device(values, parameter.device) | whole
        self.steps = state["version"]
        self._resume_schedule()
        torch.set_rng_state(state["rng"])

    def _saved_parameters(self) -> NamedParameters:
        """An adapter alone, or a whole model: with those of its parameters that are frozen."""
        return self.trained if self.model_config.lora else dict(self.model.named_parameters())

    def _write(self, folder: Path, stem: str, tensors: Mapping[str, torch.Tensor]) -> None:
        """Gather tensors on rank 0 and write them to files, one file after another."""
        max_bytes = max(MIN_FILE_BYTES, min(FILE_BYTES, self._saved_bytes // 4))
        files = divide(tensors, stem, max_bytes)
        if self.ranks.rank == 0:
            self._writer.submit(0, partial(write_index, files, folder, stem))
        for file, names in files.items():
            size = sum(tensors[name].numel() * tensors[name].element_size() for name in names)
            # The other ranks gather on, also if the disk is full.
            keep = self._writer.wait_for(size) and self.ranks.rank == 0
            part = {name: self._copy(tensors[name], keep) for name in names}
            if keep:
                self._writer.submit(size, partial(write_tensors, part, folder / file))

    def _copy(self, tensor: torch.Tensor, keep: bool) -> torch.Tensor:
        """A copy of the full tensor in host memory, which all ranks gather; nothing unless it is to be kept."""
        full = full_tensor(tensor.detach().to(self.device))
        if not keep:
            return full.new_empty(0)
        on_host = full.device.type == "cpu"
        return full.clone(memory_format=torch.contiguous_format) if on_host else full.cpu().contiguous()

    def _read(self, files: TensorFiles, name: str, parameter: torch.Tensor) -> torch.Tensor:
        """A tensor from the files, which rank 0 reads, sharded like a parameter."""
        return scattered(parameter, files.read(name) if self.ranks.rank == 0 else None)


def on_device(state: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """The optimizer state of a parameter, with the number of steps, which fused optimizers read on the device."""
    return {name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in state.items()}


def _grad_norm(parameters: Sequence[nn.Parameter]) -> float:
    """Norm of the gradient of some parameters."""
    return float(full_tensor(nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])))
