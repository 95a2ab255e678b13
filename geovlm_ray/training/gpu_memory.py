"""Estimate of the GPU memory that every actor of a run takes, and a check against the memory of a GPU.

Bytes per weight follow from the dtypes; activations are linear in tokens, with coefficients that were measured from the
tensors that the layers of Qwen2.5-VL keep for the backward pass. Real peaks differ by 10 to 20%.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import torch
from torch import nn
from transformers import PreTrainedConfig

from geovlm_ray.config import Config
from geovlm_ray.core.errors import RunError
from geovlm_ray.core.placement import GIB
from geovlm_ray.model.families import FAMILIES, family_of_folder
from geovlm_ray.model.families.base import LoraTargets, ModelFamily
from geovlm_ray.model.logprobs import MAX_LOGITS
from geovlm_ray.model.prompts import DEFAULT_VISUAL_TOKENS

CUDA_BYTES = 1.5 * GIB
"""CUDA context, libraries and their workspaces, per process."""
GRAPH_BYTES = 1.5 * GIB
"""CUDA graphs and activations of an engine."""
SBERT_BYTES = 0.5 * GIB
LOGITS_COPIES = 5
"""Tensors of the size of a chunk of fp32 logits that a loss needs at the same time."""


BESIDE_ENGINE = ("weights", "gradients and optimizer", "reference", "CUDA", "bf16 copies", "gathered layers")
"""What a learner needs while the engine on its GPU is awake: what it keeps, and a forward pass of the parity check."""


@dataclass(frozen=True)
class Tower:
    """Sizes of a stack of transformer layers: width, MLP width, total width of keys or values, number of weights."""

    layers: int
    width: int
    mlp: int
    keys: int
    weights: int

    def activations(self, tokens: int, element: int, *, lora: bool, checkpointing: bool) -> float:
        """Bytes kept for the backward pass, with elements of ``element`` bytes."""
        per_layer = (
            tokens
            * element
            * (
                18 * self.width + 5 * self.mlp + 3.5 * self.keys
                if lora
                else 16 * self.width + 4 * self.mlp + 2.5 * self.keys
            )
        )
        if not checkpointing:
            return self.layers * per_layer
        return self.layers * tokens * self.width * (element if lora else 4) + per_layer


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a vision-language model.

    ``embeddings`` counts the weights of input embeddings and output layer, ``caching_layers`` the layers whose keys and
    values an engine caches, ``recurrent_state`` the bytes that it keeps of a sequence for the others;
    ``pixels_per_token`` is the side of a visual token; a LoRA adapter has ``adapters[targets]`` weights for each unit
    of its rank.
    """

    language: Tower
    vision: Tower
    embeddings: int
    vocabulary: int
    patches_per_token: int
    pixels_per_token: int
    caching_layers: int
    recurrent_state: int
    adapters: Mapping[LoraTargets, int]

    @property
    def weights(self) -> int:
        """Number of all weights."""
        return self.language.weights + self.vision.weights + self.embeddings

    @classmethod
    def of(cls, config: PreTrainedConfig) -> ModelShape:
        """Sizes of a model by its configuration."""
        family = FAMILIES[config.model_type]
        with torch.device("meta"):
            model: nn.Module = family.model_class(config)
        text, vision = config.get_text_config(), config.vision_config
        counts = {True: 0, False: 0}
        for name, parameter in model.named_parameters():
            counts[family.is_vision(name)] += parameter.numel()
        ends = {model.get_input_embeddings().weight, model.get_output_embeddings().weight}
        embeddings = sum(weight.numel() for weight in ends)
        head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        kinds = getattr(text, "layer_types", None) or ["full_attention"] * text.num_hidden_layers
        return cls(
            language=Tower(
                text.num_hidden_layers,
                text.hidden_size,
                family.mlp_width(text),
                head * text.num_key_value_heads,
                counts[False] - embeddings,
            ),
            vision=Tower(vision.depth, *family.vision_widths(vision), 0, counts[True]),
            embeddings=embeddings,
            vocabulary=text.vocab_size,
            patches_per_token=vision.spatial_merge_size**2,
            pixels_per_token=vision.spatial_merge_size * vision.patch_size,
            caching_layers=sum(kind != "linear_attention" for kind in kinds),
            recurrent_state=family.recurrent_state(text),
            adapters={targets: _adapter_weights(model, family, targets) for targets in get_args(LoraTargets)},
        )


@dataclass(frozen=True)
class ActorMemory:
    """GPU memory of one actor in bytes, by what it holds; ``limit`` is what it may take of a GPU."""

    actor: str
    parts: Mapping[str, float]
    limit: float

    @property
    def total(self) -> float:
        """The sum of the parts."""
        return sum(self.parts.values())


def learner_memory(config: Config, shape: ModelShape, gpu_bytes: float) -> ActorMemory:
    """Memory of one learner actor."""
    settings, lora, ranks = config.model, config.model.lora, config.placement.learner.actors
    element = 2 if settings.dtype == "bfloat16" else 4
    vision_trained = (lora.targets == "all") if lora else not settings.freeze_vision
    trained = shape.weights - (0 if vision_trained else shape.vision.weights)
    if lora:
        trained = shape.adapters[lora.targets] * lora.rank
    parts = {}
    if not settings.offload:
        parts["weights"] = (shape.weights * element + trained * 4 if lora else shape.weights * 4) / ranks
        parts["gradients and optimizer"] = trained * 12 / ranks
        if config.learner.needs_reference and not lora:
            parts["reference"] = shape.weights * 4 / ranks
    if ranks > 1 or settings.offload:
        largest = max(shape.embeddings, shape.language.weights // shape.language.layers)
        parts["gathered layers"] = 2 * largest * element
    elif element == 2 and not lora:
        parts["bf16 copies"] = shape.weights * 2
    prompt = _image_tokens(config, shape.pixels_per_token)
    group = prompt + config.rollout.group_size * config.rollout.max_tokens
    tokens = max(config.learner.tokens_per_micro_batch, group)
    patches = tokens // group * prompt * shape.patches_per_token
    kind = {"lora": lora is not None, "checkpointing": config.learner.gradient_checkpointing}
    activations = shape.language.activations(tokens, element, **kind)
    if vision_trained:
        activations += shape.vision.activations(patches, element, **kind)
    parts["activations"] = activations + LOGITS_COPIES * 4 * min(MAX_LOGITS, tokens * shape.vocabulary)
    parts["CUDA"] = CUDA_BYTES
    if config.placement.colocate:
        # The engine sleeps meanwhile.
        return ActorMemory("learner", parts, gpu_bytes - CUDA_BYTES - GRAPH_BYTES)
    share, engine = min(1, config.placement.learner.num_gpus), config.placement.rollout.num_gpus
    if share < 1 and 0 < engine < 1 and not config.rollout.kv_cache_gb:
        # They may share a GPU, of which the engine takes no more than this.
        share = max(share, 1 - config.rollout.gpu_memory_utilization)
    return ActorMemory("learner", parts, gpu_bytes * share)


def engine_memory(config: Config, shape: ModelShape, gpu_bytes: float) -> ActorMemory:
    """Memory of a rollout actor on each of its GPUs; its KV cache takes the rest of its ``gpu_memory_utilization``."""
    element = 2 if config.model.dtype == "bfloat16" else 4
    workers = config.rollout.tensor_parallel
    keys_and_values = 2 * shape.caching_layers * shape.language.keys * element * config.rollout.max_model_len
    sequence = (keys_and_values + shape.recurrent_state) / workers
    parts = {"weights": shape.weights * element / workers, "CUDA": CUDA_BYTES + GRAPH_BYTES}
    limit = gpu_bytes * config.rollout.gpu_memory_utilization
    if config.rollout.kv_cache_gb:
        cache, limit = config.rollout.kv_cache_gb * GIB, gpu_bytes * min(1, config.placement.rollout.num_gpus)
    else:
        cache = limit - sum(parts.values())
    if config.placement.colocate:
        kept = learner_memory(config, shape, gpu_bytes).parts
        limit = gpu_bytes - sum(kept.get(name, 0) for name in BESIDE_ENGINE)
    return ActorMemory("rollout", {**parts, "KV cache": max(cache, sequence)}, limit)


def actors_on_gpus(config: Config, model: Path, gpu_bytes: float) -> list[ActorMemory]:
    """Memory of one actor of each kind that has a GPU or a part of one."""
    placement = config.placement
    actors = []
    if placement.learner.num_gpus or placement.rollout.num_gpus:
        model_class = family_of_folder(model).model_class
        shape = ModelShape.of(model_class.config_class.from_pretrained(model))
        if placement.learner.num_gpus:
            actors.append(learner_memory(config, shape, gpu_bytes))
        if placement.rollout.num_gpus:
            actors.append(engine_memory(config, shape, gpu_bytes))
    if placement.sbert.num_gpus:
        parts = {"weights": SBERT_BYTES, "CUDA": CUDA_BYTES}
        actors.append(ActorMemory("sbert", parts, gpu_bytes * min(1, placement.sbert.num_gpus)))
    return actors


def gpu_bytes(config: Config) -> float:
    """Memory of the smallest GPU: ``placement.gpu_memory_gb``, or that of this machine; 0 if it has none."""
    if config.placement.gpu_memory_gb:
        return config.placement.gpu_memory_gb * GIB
    devices = range(torch.cuda.device_count())
    return float(min((torch.cuda.get_device_properties(i).total_memory for i in devices), default=0))


def check_gpu_memory(config: Config, model: Path) -> None:
    """Raise RunError if an actor needs more memory than it may take of a GPU; does nothing if that is unknown."""
    if not (available := gpu_bytes(config)):
        return
    for actor in actors_on_gpus(config, model, available):
        if actor.total > actor.limit:
            parts = ", ".join(f"{name} {size / GIB:.1f}" for name, size in actor.parts.items())
            raise RunError(
                f"{actor.actor}: expected to take at most {actor.limit / GIB:.1f} GiB of a GPU of "
                f"{available / GIB:.0f} GiB, found about {actor.total / GIB:.1f} GiB ({parts}); "
                f"{'; '.join(_advice(config, actor))}"
            )


def _advice(config: Config, actor: ActorMemory) -> list[str]:
    if actor.actor == "sbert":
        return ["raise placement.sbert.num_gpus"]
    if actor.actor == "rollout":
        share = "placement.rollout.num_gpus" if config.rollout.kv_cache_gb else "rollout.gpu_memory_utilization"
        lower = "rollout.kv_cache_gb" if config.rollout.kv_cache_gb else "rollout.max_model_len"
        return [f"raise {share}", f"lower {lower}"]
    advice = []
    if not config.learner.gradient_checkpointing:
        advice.append("set learner.gradient_checkpointing=true")
    if config.learner.tokens_per_micro_batch > config.rollout.group_size * config.rollout.max_tokens:
        advice.append("lower learner.tokens_per_micro_batch")
    if not config.model.lora:
        advice.append("set model.lora={rank: 16}")
    if config.model.dtype == "float32":
        advice.append("set model.dtype=bfloat16")
    if not config.model.offload:
        advice.append("set model.offload=true")
    return [*advice, "raise placement.learner.num_gpus or placement.learner.actors"]


def _adapter_weights(model: nn.Module, family: ModelFamily, targets: LoraTargets) -> int:
    """Weights of a LoRA adapter of rank 1."""
    pattern = re.compile(family.lora_target_pattern(targets))
    linear = (m for n, m in model.named_modules() if isinstance(m, nn.Linear) and pattern.fullmatch(n))
    return sum(layer.in_features + layer.out_features for layer in linear)


def _image_tokens(config: Config, side: int) -> int:
    """Visual tokens of a prompt with one image, at ``side`` pixels a token."""
    prompt = config.prompt
    fixed = max(1, round(prompt.image_size / side)) ** 2
    if prompt.resolution == "native":
        return prompt.max_pixels // side**2 if prompt.max_pixels else DEFAULT_VISUAL_TOKENS
    return fixed * (1 + prompt.max_tiles) if prompt.resolution == "tiles" else fixed
