"""Estimated GPU memory of the actors: against what a forward pass keeps, and as a check before a start."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, Qwen2_5_VLConfig

from benchmarks.random_model import SHAPES, write_model
from geovlm_ray.cli import main
from geovlm_ray.config import load_config
from geovlm_ray.core.errors import RunError
from geovlm_ray.core.placement import GIB
from geovlm_ray.data.scenes import scene_example
from geovlm_ray.model.config import ModelConfig
from geovlm_ray.model.families import base_model
from geovlm_ray.model.loading import load_model
from geovlm_ray.model.logprobs import RowLogprobs
from geovlm_ray.model.rows import Completion, GroupRow
from geovlm_ray.training.gpu_memory import ModelShape, check_gpu_memory, engine_memory, learner_memory
from geovlm_ray.training.local import make_encoder

SHAPE = replace(SHAPES["small"], text={**SHAPES["small"].text, "hidden_size": 256, "intermediate_size": 1024})
SHAPE.text["rope_parameters"] = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [8, 12, 12]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    write_model(path, SHAPE)
    return path


def qwen_3b() -> ModelShape:
    text = {**SHAPES["3b"].text, "tie_word_embeddings": True}
    vision = {**SHAPES["3b"].vision, "out_hidden_size": text["hidden_size"]}
    return ModelShape.of(Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True))


def kept_bytes(config: ModelConfig, folder: Path, checkpointing: bool) -> tuple[int, int, int]:
    """Bytes that a forward pass keeps besides weights, and the tokens and patches of its row."""
    model = load_model(config, folder, torch.device("cpu"), 0).train()
    if checkpointing:
        base_model(model).gradient_checkpointing_enable({"use_reentrant": False})
    policy = RowLogprobs(model, torch.tensor([1]))
    encoder = make_encoder(load_config("demo", ["prompt.image_size=448"]), folder)
    completions = [Completion(torch.randint(2, 300, (101,)).tolist()) for _ in range(8)]
    row = GroupRow.of([encoder.encode(scene_example("vqa", 0, 0))], [completions])
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=config.lora is None),
    ):
        policy(row, lambda logits, targets: logits[:, 0])
    return sum(kept.values()), len(row.input_ids), len(row.images.pixel_values)


@pytest.mark.parametrize("lora", [None, {"rank": 8}])
def test_activations_are_what_a_forward_pass_keeps(folder: Path, lora: dict[str, int] | None) -> None:
    shape = ModelShape.of(AutoConfig.from_pretrained(folder))
    config = ModelConfig.model_validate({"dtype": "bfloat16", "lora": lora})
    kept, tokens, patches = kept_bytes(config, folder, checkpointing=False)
    estimate = shape.language.activations(tokens, 2, lora=lora is not None, checkpointing=False)
    if not lora:
        kept -= 2 * (shape.language.weights + shape.vision.weights)
        estimate += shape.vision.activations(patches, 2, lora=False, checkpointing=False)
    assert estimate == pytest.approx(kept, rel=0.2)


def test_gradient_checkpointing_keeps_the_inputs_of_layers(folder: Path) -> None:
    shape = ModelShape.of(AutoConfig.from_pretrained(folder))
    plain, tokens, patches = kept_bytes(ModelConfig(dtype="bfloat16"), folder, checkpointing=False)
    checkpointed, *_ = kept_bytes(ModelConfig(dtype="bfloat16"), folder, checkpointing=True)
    saved = plain - checkpointed - 2 * (shape.language.weights + shape.vision.weights)
    estimates = [
        sum(
            tower.activations(n, 2, lora=False, checkpointing=on)
            - on * tower.activations(n, 2, lora=False, checkpointing=False) / tower.layers
            for tower, n in ((shape.language, tokens), (shape.vision, patches))
        )
        for on in (False, True)
    ]
    assert estimates[0] - estimates[1] == pytest.approx(saved, rel=0.2)


def test_weights_gradients_and_optimizer_of_the_3b() -> None:
    shape = qwen_3b()
    assert shape.weights == pytest.approx(3.75e9, rel=0.01)
    config = load_config("geovlm-r1")
    full = learner_memory(config, shape, 80 * GIB)
    assert full.parts["weights"] + full.parts["gradients and optimizer"] == 16 * shape.weights
    assert full.parts["reference"] == 4 * shape.weights
    four = learner_memory(load_config("geovlm-r1", ["placement.learner.actors=4"]), shape, 80 * GIB)
    assert four.parts["weights"] == full.parts["weights"] / 4
    adapter = learner_memory(load_config("geovlm-r1", ["model.lora={rank: 16}"]), shape, 80 * GIB)
    assert adapter.total < 20 * GIB < full.total


def test_kv_cache_takes_what_is_left_of_the_share() -> None:
    engine = engine_memory(load_config("geovlm-r1"), qwen_3b(), 80 * GIB)
    assert engine.total == pytest.approx(0.85 * 80 * GIB)
    assert engine.parts["weights"] == 2 * qwen_3b().weights


def test_the_recipe_for_one_gpu_fits_on_24_gib() -> None:
    config, shape = load_config("debug-gpu"), qwen_3b()
    for actor in (learner_memory(config, shape, 24 * GIB), engine_memory(config, shape, 24 * GIB)):
        assert actor.total <= actor.limit, actor


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["placement.gpu_memory_gb=2", "model.lora=null"], r"learner: .*raise placement.learner.num_gpus"),
        (
            ["placement.gpu_memory_gb=4"],
            r"rollout: .*raise rollout.gpu_memory_utilization; lower rollout.max_model_len",
        ),
        (["placement.gpu_memory_gb=8", "rollout.kv_cache_gb=8"], r"rollout: .*lower rollout.kv_cache_gb"),
        (["placement.gpu_memory_gb=16", "placement.sbert.num_gpus=0.1"], r"sbert: .*raise placement.sbert.num_gpus"),
        (
            [
                "placement.gpu_memory_gb=16",
                "learner.tokens_per_micro_batch=4000000",
                "learner.gradient_checkpointing=false",
            ],
            r"learner: .*activations.*learner.gradient_checkpointing=true; lower learner.tokens_per_micro_batch",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_the_keys_to_change(folder: Path, overrides: list[str], message: str) -> None:
    config = load_config("debug-gpu", [f"model.path={folder}", *overrides])
    with pytest.raises(RunError, match=message):
        check_gpu_memory(config, folder)


def test_dry_run_prints_what_each_actor_takes_of_a_gpu(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["train", "debug-gpu", f"model.path={folder}", "--dry-run"]
    main([*command, "placement.gpu_memory_gb=80"])
    output = capsys.readouterr().out
    assert "Estimated memory of a GPU of 80 GiB" in output
    assert "KV cache 33.0" in output
    if not torch.cuda.is_available():
        main(command)
        assert "GPU memory: unknown here; set placement.gpu_memory_gb" in capsys.readouterr().out


def test_colocated_learner_has_the_memory_of_the_sleeping_engine() -> None:
    settings = [
        "placement.rollout.num_gpus=0.5",
        "placement.learner.num_gpus=0.5",
        "model.dtype=bfloat16",
        "learner.kl_beta=0",
    ]
    config = load_config("demo", ["placement.colocate=true", "loop.max_staleness=0", *settings])
    apart, shape = load_config("demo", settings), qwen_3b()
    assert learner_memory(config, shape, 80 * GIB).limit > 75 * GIB > learner_memory(apart, shape, 80 * GIB).limit
    kept = learner_memory(config, shape, 80 * GIB).parts
    # The parity check runs beside the engine that is awake, and casts the weights.
    resident = kept["weights"] + kept["gradients and optimizer"] + kept["CUDA"] + kept["bf16 copies"]
    assert engine_memory(config, shape, 80 * GIB).limit == pytest.approx(80 * GIB - resident)


def test_workers_of_an_engine_divide_weights_and_cache() -> None:
    one = load_config("demo", ["placement.rollout.num_gpus=1", "rollout.kv_cache_gb=0"])
    four = load_config("demo", ["placement.rollout.num_gpus=4", "rollout.tensor_parallel=4", "rollout.kv_cache_gb=0"])
    whole, part = (engine_memory(config, qwen_3b(), 24 * GIB) for config in (one, four))
    assert part.parts["weights"] == whole.parts["weights"] / 4
    assert part.parts["CUDA"] == whole.parts["CUDA"]
    assert part.total <= part.limit
