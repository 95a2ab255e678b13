"""Supervised fine-tuning: the warm-up that teaches a policy to reason and answer in the asked form."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import nn

from geovlm_ray.policy.forward import CompletionBatch, sequence_logits
from geovlm_ray.policy.prompts import PromptEncoder
from geovlm_ray.schema import Example
from geovlm_ray.sft.config import SftConfig

logger = logging.getLogger(__name__)


def train(
    model: nn.Module,
    batches: Iterator[CompletionBatch],
    config: SftConfig,
    on_log: Callable[[int, float], None],
) -> None:
    """Maximise log p(response | images, question) over ``config.steps`` batches.

    The loss is the mean over the response's tokens, its end included; the prompt carries none. The learning
    rate rises linearly and then falls linearly to zero. ``on_log`` gets the step and the mean loss since the
    last call.
    """
    torch.set_num_threads(config.threads)
    model.train()
    optimizers = _optimizers(model, config)
    running, since = 0.0, 0
    for step in range(1, config.steps + 1):
        scale = min(step / max(config.warmup_steps, 1), 1.0) * (1 - (step - 1) / config.steps)
        loss = response_loss(model, next(batches))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak_lr"] * scale
            optimizer.step()
            optimizer.zero_grad()
        running, since = running + float(loss.detach()), since + 1
        if step % config.log_every == 0 or step == config.steps:
            on_log(step, running / since)
            running, since = 0.0, 0


def response_loss(model: nn.Module, batch: CompletionBatch) -> torch.Tensor:
    """Mean cross-entropy over the tokens of the responses and their ends."""
    logits = sequence_logits(model, batch)
    mask = batch.mask.to(logits.device)
    targets = batch.token_ids.to(logits.device)
    return nn.functional.cross_entropy(logits[mask].float(), targets[mask])


def encode_batch(encoder: PromptEncoder, records: Sequence[tuple[Example, str]]) -> CompletionBatch:
    """Prompts and responses of (example, response) records as tensors."""
    tokenizer = encoder.processor.tokenizer
    prompts = [encoder.encode(example) for example, _ in records]
    responses = [[[*tokenizer(text)["input_ids"], tokenizer.eos_token_id]] for _, text in records]
    return CompletionBatch.of(prompts, responses)


def _optimizers(model: nn.Module, config: SftConfig) -> list[torch.optim.Optimizer]:
    trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    matrices = [p for n, p in trained if config.optimizer == "muon" and p.ndim == 2 and "embed" not in n]
    chosen = {id(p) for p in matrices}
    rest = [p for _, p in trained if id(p) not in chosen]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(rest, lr=config.lr, betas=(0.9, 0.95), weight_decay=0.0)
    ]
    if matrices:
        # The scale of Muon's update is set so that AdamW's learning rate serves both.
        optimizers.append(torch.optim.Muon(matrices, lr=config.lr, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak_lr"] = config.lr
    return optimizers
