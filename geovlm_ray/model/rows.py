"""Rows: groups of completions packed without padding, each group's prompt and images once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from geovlm_ray.model.families import family_of
from geovlm_ray.model.prompts import EncodedImages, EncodedPrompt, pad_right


@dataclass(frozen=True)
class Completion:
    """Token ids that follow a prompt.

    ``loss_mask`` marks the tokens that the policy wrote; the others, such as results of tools, are read but not scored.
    None: it wrote all. ``images`` are those of the placeholders among the token ids, in order.
    """

    token_ids: Sequence[int]
    loss_mask: Sequence[bool] | None = None
    images: EncodedImages | None = None

    def __len__(self) -> int:
        return len(self.token_ids)

    @property
    def mask(self) -> torch.Tensor:
        """``loss_mask`` as a tensor [T] bool."""
        return torch.tensor([True] * len(self) if self.loss_mask is None else list(self.loss_mask))


@dataclass(frozen=True)
class GroupSpan:
    """Position of a group in its row: ``prompt`` tokens from index ``start``, then completions of these lengths.

    ``images`` holds the number of images of the prompt, then of each completion.
    """

    start: int
    prompt: int
    completions: tuple[int, ...]
    images: tuple[int, ...]

    @property
    def prompt_end(self) -> int:
        """Index after the prompt."""
        return self.start + self.prompt

    @property
    def end(self) -> int:
        """Index after the last completion."""
        return self.prompt_end + sum(self.completions)


@dataclass(frozen=True)
class GroupRow:
    """Groups packed into one row of L tokens, with N scored completion tokens in total.

    ``input_ids`` [L] omits the last token of every completion, which predicts nothing. ``images`` are in the order of
    their placeholders. For each completion token that the policy wrote, ``logit_positions`` [N] is the index in the row
    whose hidden state predicts it, ``targets`` [N] its id and ``sample`` [N] the index of its completion.
    """

    groups: tuple[GroupSpan, ...]
    input_ids: torch.Tensor
    images: EncodedImages
    logit_positions: torch.Tensor
    targets: torch.Tensor
    sample: torch.Tensor

    @classmethod
    def of(cls, prompts: Sequence[EncodedPrompt], completions: Sequence[Sequence[Completion]]) -> GroupRow:
        """Build from the completions of each prompt.

        Raises:
            ValueError: the two lengths differ, or the policy did not write a completion's last token.
        """
        ids, images, positions, groups = [], [], [], []
        start = 0
        for prompt, group in zip(prompts, completions, strict=True):
            if not all(len(c) and (c.loss_mask is None or c.loss_mask[-1]) for c in group):
                raise ValueError("expected completions that end with a token of the policy, found another one")
            all_images = [prompt.images, *(c.images for c in group)]
            images += [i for i in all_images if i is not None]
            span = GroupSpan(
                start,
                len(prompt.input_ids),
                tuple(len(c) - 1 for c in group),
                tuple(0 if i is None else len(i.grid_thw) for i in all_images),
            )
            ids += [prompt.input_ids, *(torch.tensor(c.token_ids[:-1], dtype=torch.long) for c in group)]
            offset = span.prompt_end
            for completion, length in zip(group, span.completions, strict=True):
                # The prompt's last token predicts the first token of every completion.
                predicting = torch.cat([torch.tensor([span.prompt_end - 1]), torch.arange(offset, offset + length)])
                positions.append(predicting[completion.mask])
                offset += length
            groups.append(span)
            start = span.end
        flat = [completion for group in completions for completion in group]
        return cls(
            groups=tuple(groups),
            input_ids=torch.cat(ids),
            images=EncodedImages(torch.cat([i.pixel_values for i in images]), torch.cat([i.grid_thw for i in images])),
            logit_positions=torch.cat(positions),
            targets=torch.cat([torch.tensor(c.token_ids)[c.mask] for c in flat]),
            sample=torch.repeat_interleave(torch.arange(len(flat)), torch.tensor([len(p) for p in positions])),
        )

    def positions(self, base: nn.Module) -> torch.Tensor:
        """Rotary positions of the row, [axes, L]; every completion continues from the end of its prompt."""
        sequences, grids = self._sequences_with_images()
        mask = pad_right([torch.ones_like(ids) for ids in sequences])
        axes = iter(family_of(base).positions(base, pad_right(sequences), torch.cat(grids), mask).unbind(1))
        parts = []
        for group in self.groups:
            prompt = next(axes)[:, : group.prompt]
            parts.append(prompt)
            first = int(prompt.max()) + 1
            for length, num_images in zip(group.completions, group.images[1:], strict=True):
                if num_images:
                    parts.append(next(axes)[:, group.prompt : group.prompt + length])
                else:
                    parts.append((first + torch.arange(length)).expand(len(prompt), -1))
        return torch.cat(parts, dim=1)

    def _sequences_with_images(self) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Token ids and image grids of every prompt, and of every completion with images together with its prompt."""
        sequences, grids = [], []
        per_text = iter(self.images.grid_thw.split([n for group in self.groups for n in group.images]))
        for group in self.groups:
            prompt, prompt_grid = self.input_ids[group.start : group.prompt_end], next(per_text)
            sequences.append(prompt)
            grids.append(prompt_grid)
            for completion in self.input_ids[group.prompt_end : group.end].split(list(group.completions)):
                if len(grid := next(per_text)):
                    sequences.append(torch.cat([prompt, completion]))
                    grids += [prompt_grid, grid]
        return sequences, grids
