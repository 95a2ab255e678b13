"""Checks before a run: the first problem ends a run, the dry run reports all."""

from __future__ import annotations

from pathlib import Path

import pytest

from geovlm_ray.config import Config, load_config
from geovlm_ray.core.errors import ConfigError, DataError, ModelError, UserError
from geovlm_ray.training.preflight import CHECKS, Check, prepare, problems

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
        "context",
        "memory",
        "GPU memory",
        "held-out examples",
        "records",
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
    assert [name for name in NAMES if name not in found] == ["context", "memory", "GPU memory", "records"]
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
