"""The trainer of supervised fine-tuning: the learner of RL with one completion per prompt and no advantages."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn
from transformers import ProcessorMixin

from geovlm_ray.core.errors import RunError
from geovlm_ray.learner.ranks import SINGLE_PROCESS, Ranks
from geovlm_ray.learner.schedules import schedule
from geovlm_ray.learner.sft.batches import Batch
from geovlm_ray.learner.sft.config import SftConfig
from geovlm_ray.learner.trained_policy import NamedParameters, TrainedPolicy
from geovlm_ray.model.config import ModelConfig
from geovlm_ray.model.logprobs import fused_logprobs, logprobs_and_hits


class SftTrainer(TrainedPolicy):
    """Maximises log p(response | images, question).

    With several ranks, each trains on its own records of every batch, and all return the same results.
    """

    def __init__(
        self,
        model: nn.Module,
        processor: ProcessorMixin,
        model_config: ModelConfig,
        config: SftConfig,
        device: torch.device,
        ranks: Ranks = SINGLE_PROCESS,
    ) -> None:
        torch.set_num_threads(config.threads)
        self.config = config
        super().__init__(
            model,
            processor,
            model_config,
            self._optimizers,
            schedule(config.lr_decay, config.warmup_steps, config.steps, config.lr_end),
            device,
            gradient_checkpointing=config.gradient_checkpointing,
            ranks=ranks,
        )

    def step(self, batch: Batch) -> dict[str, float]:
        """One optimizer step; the loss is the mean over the response tokens of all ranks, regardless of packing.

        Raises:
            RunError: loss or gradient norm is not finite; weights and optimizer state are unchanged.
        """
        self.model.train()
        counts = self.ranks.all_reduce_sum({"tokens": batch.tokens, "response_tokens": batch.response_tokens})
        loss = 0.0
        for row, is_real in self.ranks.padded(batch.rows, batch.rows[0]):
            row_loss = -self.scores(row, fused_logprobs).sum() / counts["response_tokens"]
            self.backward(row_loss, is_real)
            loss += float(row_loss.detach()) * is_real
        loss = self.ranks.all_reduce_sum({"loss": loss})["loss"]
        norms = self.clip_gradient(self.config.max_grad_norm)
        norm = norms["grad_norm"]
        if not (math.isfinite(loss) and math.isfinite(norm)):
            self.zero_grad()
            raise RunError(
                f"step {self.steps + 1}: expected a finite loss and gradient, found a loss of {loss:g} and a gradient "
                f"norm of {norm:g} on the records {', '.join(map(repr, batch.ids[:8]))}; the weights are those of step "
                f"{self.steps}; lower sft.lr, or inspect the records"
            )
        lr = self.lr
        self.update()
        self.finish_step()
        return {"loss": loss, "lr": lr, **norms, **counts}

    @torch.no_grad()
    def evaluate(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Mean loss per response token, and the fraction of response tokens whose argmax prediction is correct.

        All ranks must evaluate the same batches.
        """
        self.model.eval()
        sums, tokens = torch.zeros(2, dtype=torch.float64), 0
        for batch in batches:
            for row in batch.rows:
                sums += self.scores(row, logprobs_and_hits).double().sum(0).cpu()
            tokens += batch.response_tokens
        return {"eval/loss": -float(sums[0]) / tokens, "eval/token_accuracy": float(sums[1]) / tokens}

    def _optimizers(self, trained: NamedParameters) -> list[torch.optim.Optimizer]:
        muon = self.config.optimizer == "muon"
        matrices = [p for name, p in trained.items() if muon and p.ndim == 2 and "embed" not in name]
        matrix_ids = {id(p) for p in matrices}
        rest = [p for p in trained.values() if id(p) not in matrix_ids]
        optimizers: list[torch.optim.Optimizer] = []
        if rest:
            optimizers.append(
                torch.optim.AdamW(rest, lr=self.config.lr, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
            )
        if matrices:
            # Muon's update is scaled so that AdamW's learning rate suits both.
            optimizers.append(
                torch.optim.Muon(matrices, lr=self.config.lr, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
            )
        return optimizers
