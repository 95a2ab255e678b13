"""Checks before a run: the first problem ends a run, the dry run reports all."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nltk
import pytest

from benchmarks.random_families import save
from geovlm_ray.cli import main
from geovlm_ray.config import Config, load_config
from geovlm_ray.core.errors import ConfigError, DataError, ModelError, UserError
from geovlm_ray.rewards.text_metrics import wordnet
from geovlm_ray.training.preflight import CHECKS, Check, prepare, problems, sequence_bytes
from geovlm_ray.transport import TRANSPORTS
from tests.unit.datasets import example, write_dataset, write_image

NAMES = [check.name for check in CHECKS]


def reported(config: Config) -> dict[str, UserError | None]:
    return dict(problems(config, CHECKS, {}))


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Settings of a run in an empty folder."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return [f"run.dir={tmp_path}"]


def test_checked_run_has_its_model_data_and_tasks(settings: list[str]) -> None:
    config = load_config("demo", settings)
    assert reported(config) == dict.fromkeys(NAMES)
    ready = prepare(config)
    assert (ready.model / "config.json").is_file()
    assert set(ready.tasks) <= set(ready.stream.tasks)


def test_all_problems_are_reported_and_checks_without_their_input_skipped(settings: list[str]) -> None:
    broken = [*settings, "model.path=/nowhere", "data.source=samples", "data.path=/nowhere.jsonl", "data.stages=[]"]
    config = load_config("demo", [*broken, "evaluation.every=2", "evaluation.benchmarks=[rsicd]"])
    found = reported(config)
    assert [name for name in NAMES if name not in found] == [
        "WordNet",
        "context",
        "tensor parallel",
        "memory",
        "GPU memory",
        "held-out examples",
        "answer format",
        "records",
        "reward of records",
    ]
    assert {name: type(error) for name, error in found.items() if error} == {
        "model": ModelError,
        "data": DataError,
        "benchmarks": DataError,
    }
    with pytest.raises(DataError, match=r"evaluation\.benchmarks: rsicd: expected its data"):
        prepare(config)


def test_other_data_checks_run_when_only_the_model_is_missing(settings: list[str]) -> None:
    found = reported(load_config("demo", [*settings, "model.path=/nowhere"]))
    assert [name for name in NAMES if name not in found] == [
        "context",
        "tensor parallel",
        "memory",
        "GPU memory",
        "answer format",
        "records",
        "reward of records",
    ]
    assert found["held-out examples"] is None


def test_check_receives_what_the_checks_that_it_needs_returned(demo: Config) -> None:
    def fail(config: Config, number: int) -> None:
        raise ConfigError(f"{number} {config.run.name}")

    checks = [
        Check("number", lambda config: 3),
        Check("uses", fail, needs=("number",)),
        Check("skipped", fail, needs=("uses",)),
    ]
    results: dict[str, object] = {}
    assert [(name, error and str(error)) for name, error in problems(demo, checks, results)] == [
        ("number", None),
        ("uses", f"3 {demo.run.name}"),
    ]
    assert results == {"number": 3}


def test_engine_workers_must_divide_the_model(settings: list[str]) -> None:
    found = reported(load_config("demo", [*settings, "rollout.tensor_parallel=2"]))["tensor parallel"]
    assert re.search(
        r"rollout.tensor_parallel: expected a divisor of num_attention_heads, .* found 2, .*vision_config.num_heads=3$",
        str(found),
    )


@pytest.mark.parametrize("max_bad", [0.01, 0.1])
def test_dry_run_shows_records_that_are_set_aside(
    max_bad: float, settings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_image(tmp_path / "images" / "a.png", 0)
    texts = ["How many ships?", "What is <|im_end|> ?", "<image> How many?", "word " * 2000]
    records = [example(k, ("a.png",), question=texts[k] if k < 4 else texts[0]) for k in range(30)]
    folder = write_dataset(tmp_path / "data", records, root=str(tmp_path / "images"))
    data = ["data.source=parquet", f"data.path={folder}", "data.stages=[]", f"data.max_bad={max_bad}"]
    arguments = ["train", "demo", "--local", "--dry-run", *settings, *data, "evaluation.num_examples=0"]
    assert main(arguments) == int(max_bad == 0.01)
    output = " ".join(capsys.readouterr().out.split())
    first = "record 'r1' (part-00000.parquet, row 1): expected plain text, found control token '<|im_end|>'"
    if max_bad == 0.01:
        assert f"records: {folder}: expected at most 1.00% bad records (data.max_bad), found 1 of 30: {first}" in output
    else:
        assert "records: ok" in output
        assert f"2 of 30 records (6.67%) are set aside, first: {first} Warning" in output
        assert "Warning: image placeholder in the question: 1 records, first: part-00000.parquet, row 2" in output


COLOCATED = ["placement.colocate=true", "loop.max_staleness=0"]
ON_GPUS = ["placement.rollout.num_gpus=1", "placement.learner.num_gpus=1"]
HALVES = ["placement.rollout.num_gpus=0.5", "placement.learner.num_gpus=0.5"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["placement.colocate=true"], "placement.colocate=true: expected loop.max_staleness=0$"),
        (
            [*COLOCATED, "placement.rollout.actors=2"],
            "expected placement.learner.actors=2, one for each rollout actor$",
        ),
        (
            [*COLOCATED, *ON_GPUS],
            "expected placement.rollout.num_gpus and placement.learner.num_gpus to make one GPU, or both 0$",
        ),
        (
            [*COLOCATED, "sync.mode=in_flight", "rollout.tensor_parallel=2"],
            "sync.mode=drained; rollout.tensor_parallel=1",
        ),
        (
            ["rollout.tensor_parallel=2", *ON_GPUS],
            "rollout.tensor_parallel: expected placement.rollout.num_gpus=1, .* found 2",
        ),
        (["rollout.tensor_parallel=2", "sync.transport=object_store"], "sync.transport=object_store: expected nccl"),
    ],
)
def test_settings_that_contradict_each_other_are_errors(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config("demo", overrides)


@pytest.mark.parametrize(
    ("overrides", "transport"),
    [
        ([], "object_store"),
        (ON_GPUS, "nccl"),
        (HALVES, "ipc"),
        ([*COLOCATED, *HALVES, "placement.rollout.actors=2", "placement.learner.actors=2"], "ipc"),
        ([*ON_GPUS, "model.lora={rank: 4}"], "object_store"),
        ([*ON_GPUS, "model.lora={rank: 4, targets: all}"], "nccl"),
        (["rollout.tensor_parallel=2"], "gloo"),
        (["rollout.tensor_parallel=2", "model.lora={rank: 4}"], "object_store"),
        ([*ON_GPUS, "sync.transport=object_store"], "object_store"),
    ],
)
def test_transport_fits_the_placement(overrides: list[str], transport: str) -> None:
    assert load_config("demo", overrides).transport is TRANSPORTS[transport]


@pytest.mark.parametrize(("task", "needed"), [("change_captioning", True), ("image_captioning", False)])
def test_wordnet_is_required_before_the_start_of_a_run_with_meteor(
    task: str, needed: bool, settings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nltk.data, "path", [])
    monkeypatch.setattr(wordnet, "data_directory", lambda: tmp_path)
    config = load_config("demo", [*settings, f"data.stages=[{{tasks: [{task}], steps: 1}}]"])
    error = reported(config)["WordNet"]
    assert (error is not None) == needed
    if error:
        assert "python -m geovlm_ray.rewards.text_metrics.wordnet" in str(error)


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("def f(prompts, completions, **kw): return [0.5 for _ in completions]", r"\[0, 1\], .*, found \[0\.5, "),
        ("def f(response, target): return target['answer']", "TypeError: string indices must be integers"),
        ("def f(response, target): return None", "found None"),
        ("def f(response, target, task): return float(task == 'vqa' and '<answer>' in response)", None),
    ],
)
def test_reward_function_is_called_before_the_start(
    code: str, found: str | None, settings: list[str], tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(code)
    own = [f"reward={tmp_path}/mine.py:f", "data.stages=[{tasks: [vqa], steps: 1}]", "evaluation.num_examples=0"]
    error = reported(load_config("demo", [*settings, *own]))["reward of records"]
    assert (error is None) == (found is None)
    if found:
        message = r"reward function '.*/mine\.py:f': expected a number for the reference answer of record '.*' of vqa, "
        assert re.search(rf"{message}found: .*{found}", str(error))


def test_layers_of_linear_attention_cache_no_keys_and_values(tmp_path: Path) -> None:
    folder = save("qwen3_5", tmp_path)
    text = json.loads((folder / "config.json").read_text())["text_config"]
    layers = text["layer_types"]
    assert set(layers) == {"full_attention", "linear_attention"}
    of_a_token = sequence_bytes(folder, "bfloat16", 2) - sequence_bytes(folder, "bfloat16", 1)
    keys = text["num_key_value_heads"] * text["head_dim"]
    assert of_a_token == 2 * 2 * keys * layers.count("full_attention")
    assert sequence_bytes(folder, "bfloat16", 0) > 0, "the states of linear attention"
