"""The trainer of supervised fine-tuning."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import nn
from transformers import ProcessorMixin

from geovlm_ray.core.errors import RunError
from geovlm_ray.learner.sft.batches import Batch
from geovlm_ray.learner.sft.config import SftConfig
from geovlm_ray.model.attention import attend_within_sequences
from geovlm_ray.model.config import ModelConfig
from geovlm_ray.model.forward import Pack, base_model, packed_logits
from geovlm_ray.model.loading import autocast_context, load_state, restore_policy, save_policy, save_state

STATE_FILE = "sft.pt"


class SftTrainer:
    """Maximises log p(response | images, question); ``done`` counts completed optimizer steps."""

    def __init__(
        self, model: nn.Module, processor: ProcessorMixin, model_config: ModelConfig, config: SftConfig
    ) -> None:
        torch.set_num_threads(config.threads)
        self.model = model
        self.processor = processor
        self.model_config = model_config
        self.config = config
        self.done = 0
        self.device = base_model(model).device
        attend_within_sequences(model)
        if config.gradient_checkpointing:
            base_model(model).gradient_checkpointing_enable({"use_reentrant": False})
        self.trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        self.optimizers = _optimizers(self.trained, config)

    def step(self, batch: Batch) -> dict[str, float]:
        """One optimizer step; the loss is the mean over all response tokens of the batch, regardless of packing.

        Raises:
            RunError: loss or gradient norm is not finite; weights and optimizer state are unchanged.
        """
        self.model.train()
        tokens = batch.response_tokens
        loss = 0.0
        for row in batch.packs:
            row_loss = self._loss(row)[0] / tokens
            row_loss.backward()
            loss += float(row_loss.detach())
        norm = float(nn.utils.clip_grad_norm_([p for _, p in self.trained], self.config.max_grad_norm))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            self._zero_grad()
            raise RunError(
                f"step {self.done + 1}: expected a finite loss and gradient, found a loss of {loss:g} and a gradient "
                f"norm of {norm:g} on the records {', '.join(map(repr, batch.ids[:8]))}; the weights are those of step "
                f"{self.done}; lower sft.lr, or inspect the records"
            )
        lr = self._set_lr()
        for optimizer in self.optimizers:
            optimizer.step()
        self._zero_grad()
        self.done += 1
        return {"loss": loss, "lr": lr, "grad_norm": norm, "tokens": batch.tokens, "response_tokens": tokens}

    @torch.no_grad()
    def evaluate(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Mean loss per response token, and the fraction of response tokens whose argmax prediction is correct."""
        self.model.eval()
        loss, hits, tokens = 0.0, 0, 0
        for batch in batches:
            for row in batch.packs:
                row_loss, logits = self._loss(row)
                loss += float(row_loss)
                hits += int((logits.argmax(-1).cpu() == row.targets).sum())
            tokens += batch.response_tokens
        return {"eval/loss": loss / tokens, "eval/token_accuracy": hits / tokens}

    def save(self, folder: Path) -> None:
        """Save the model or adapter as a Hugging Face folder, with the optimizer state."""
        save_policy(self.model, self.processor, folder)
        save_state({"optimizers": [o.state_dict() for o in self.optimizers], "done": self.done}, folder / STATE_FILE)

    def saved(self) -> bool:
        """Always True: `save` is synchronous."""
        return True

    def load(self, folder: Path) -> None:
        """Restore the state that `save` wrote."""
        state = load_state(folder / STATE_FILE)
        restore_policy(self.model, self.model_config, folder)
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.done = state["done"]

    def _loss(self, row: Pack) -> tuple[torch.Tensor, torch.Tensor]:
        """Summed cross-entropy of a row's response tokens, and their logits."""
        with autocast_context(self.model_config, self.device):
            logits = packed_logits(self.model, row)
        targets = row.targets.to(self.device)
        return nn.functional.cross_entropy(logits.float(), targets, reduction="sum"), logits

    def _set_lr(self) -> float:
        """Linear warm-up, times a linear decay to zero after the last step."""
        warmup = min((self.done + 1) / max(self.config.warmup_steps, 1), 1.0)
        lr = self.config.lr * warmup * (1 - self.done / self.config.steps)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = lr
        return lr

    def _zero_grad(self) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad()


def _optimizers(trained: list[tuple[str, nn.Parameter]], config: SftConfig) -> list[torch.optim.Optimizer]:
    matrices = [p for n, p in trained if config.optimizer == "muon" and p.ndim == 2 and "embed" not in n]
    matrix_ids = {id(p) for p in matrices}
    rest = [p for _, p in trained if id(p) not in matrix_ids]
    optimizers: list[torch.optim.Optimizer] = []
    if rest:
        optimizers.append(torch.optim.AdamW(rest, lr=config.lr, betas=(0.9, 0.95), weight_decay=0.0))
    if matrices:
        # Muon's update is scaled so that AdamW's learning rate suits both.
        optimizers.append(torch.optim.Muon(matrices, lr=config.lr, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"))
    return optimizers
