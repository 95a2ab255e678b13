"""User reward functions run in a subprocess that can be killed."""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from geovlm_ray.cli import main
from geovlm_ray.config import load_config
from geovlm_ray.core.errors import ConfigError
from geovlm_ray.core.schema import Box, Example
from geovlm_ray.rewards import RewardConfig, needs_embedder, score_batch
from geovlm_ray.rewards.isolated import IsolatedFunction, check_function, isolated
from tests.unit.reward_examples import example, response

CODE = """
import os, sys, time

print("a user may print")

def reward(response, target):
    print("whenever")
    for word, act in ACTS.items():
        if word in response:
            return act()
    return 0.25

def spin():
    while True:
        pass

ACTS = {
    "HANG": lambda: time.sleep(60), "SPIN": spin, "CRASH": lambda: os._exit(3), "KILL": lambda: os.kill(os.getpid(), 9),
    "LEAVE": lambda: sys.exit(0), "RAISE": lambda: 1 / 0, "NAN": lambda: float("nan"), "TWO": lambda: 2,
    "NONE": lambda: None, "TEXT": lambda: "1", "TRUE": lambda: True, "LOOP": lambda: ACTS["LOOP"](),
    "PARTS": lambda: {"accuracy": 0.5, "words": 3}, "BAD": lambda: {"accuracy": 0.5, "words": "many"},
    "FLOOD": lambda: "x" * 10_000_000, "LACK": lambda: {"score": 1},
}

def seen(response, target, task, labels, frame, **rest):
    return {"accuracy": 1.0 if (target, task, labels, frame, sorted(rest)) == WANTED else 0.0}

WANTED = ([[1.0, 2.0, 3.0, 4.0], {"box": [5.0, 6.0, 7.0, 8.0, 9.0], "label": "ship"}], "object_detection", ["ship"],
          "percent", ["id", "question"])
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("user") / "mine.py"
    path.write_text(CODE)
    return path


def config(file: Path, name: str = "reward", **settings: Any) -> RewardConfig:
    return RewardConfig(function=f"{file}:{name}", time_limit_s=0.5, **settings)


def function_of(config: RewardConfig) -> IsolatedFunction:
    assert config.function
    return isolated(config.function, config)


VQA = example("vqa", "yes")


@pytest.mark.parametrize(
    ("word", "status", "accuracy"),
    [
        ("fine", "ok", 0.25),
        ("TRUE", "ok", 1.0),
        ("PARTS", "ok", 0.5),
        ("HANG", "timeout", 0.0),
        ("SPIN", "timeout", 0.0),
        ("CRASH", "error", 0.0),
        ("KILL", "error", 0.0),
        ("LEAVE", "error", 0.0),
        ("RAISE", "error", 0.0),
        ("LOOP", "error", 0.0),
        ("NAN", "error", 0.0),
        ("TWO", "error", 0.0),
        ("NONE", "error", 0.0),
        ("TEXT", "error", 0.0),
        ("BAD", "error", 0.0),
        ("LACK", "error", 0.0),
        ("FLOOD", "error", 0.0),
        ("\ud800\x00 </fine>", "ok", 0.25),
    ],
)
def test_every_call_outcome_has_a_status_and_the_batch_continues(
    file: Path, word: str, status: str, accuracy: float
) -> None:
    scores = score_batch([response(w) for w in ("a", word, "b")], [VQA] * 3, config(file))
    assert [(s.status, s.accuracy) for s in scores] == [("ok", 0.25), (status, accuracy), ("ok", 0.25)]
    assert [s.total for s in scores] == [1.25, 1 + accuracy, 1.25]


def test_hanging_call_is_stopped_at_its_time_limit(file: Path) -> None:
    settings = config(file)
    check_function(settings)
    assert [score.status for score in score_batch([response("HANG")], [VQA], settings)] == ["timeout"]


def test_failures_are_logged_once_per_batch(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    score_batch([response(w) for w in ("RAISE", "TWO", "a")], [VQA] * 3, config(file))
    (line,) = caplog.messages
    assert "2 of 3 responses have no score" in line
    assert "ZeroDivisionError" in line


def test_malformed_and_overlong_responses_are_not_scored(file: Path) -> None:
    settings = config(file, max_chars=60, combine="gated")
    scores = score_batch(["HANG", response("a"), "a" * 61], [VQA] * 3, settings)
    assert [s.status for s in scores] == ["unparseable", "ok", "too_long"]
    assert [s.total for s in scores] == [0, 0.25, 0]


def test_function_scores_all_tasks_without_loading_sbert(file: Path) -> None:
    settings = config(file)
    assert not needs_embedder("region_captioning", settings)
    records = [VQA, example("region_captioning", ("a ship",)), example("object_detection", ())]
    assert [s.accuracy for s in score_batch([response("a")] * 3, records, settings)] == [0.25] * 3


def test_function_receives_json_target_and_named_arguments(file: Path) -> None:
    target = (Box((1.0, 2.0, 3.0, 4.0)), Box((5.0, 6.0, 7.0, 8.0, 9.0), "ship"))
    record = Example("1", "object_detection", (), "where?", target, labels=("ship",))
    (score,) = score_batch([response("a")], [record], config(file, "seen"))
    assert (score.status, score.accuracy, score.components) == ("ok", 1.0, {"accuracy": 1.0})


def test_process_is_reused_across_calls_and_threads(file: Path) -> None:
    settings = config(file)
    check_function(settings)
    before = function_of(settings)._process
    threads = [
        threading.Thread(target=score_batch, args=([response("a")] * 20, [VQA] * 20, settings)) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert function_of(settings)._process is before


def test_process_killed_between_batches_is_replaced(file: Path) -> None:
    settings = config(file)
    check_function(settings)
    process = function_of(settings)._process
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert [s.status for s in score_batch([response("a")] * 3, [VQA] * 3, settings)] == ["ok"] * 3


@pytest.mark.parametrize(
    ("code", "name", "message"),
    [
        ("", "reward", "found none"),
        ("def other(response, target): return 0", "reward", "expected a function 'reward'"),
        ("def other(response, target): return 0", "reward", "found other"),
        ("def reward(:", "reward", "SyntaxError"),
        ("import nowhere_at_all", "reward", "nowhere_at_all"),
        ("import os; os._exit(1)", "reward", "died while loading it"),
        ("def reward(response): return 0", "reward", r"\(response, target\) and optionally id, .*, found \(response\)"),
        ("def reward(response, target, image): return 0", "reward", "missing a required argument: 'image'"),
        ("reward = 0.5", "reward", "expected a function 'reward'"),
    ],
)
def test_unloadable_function_is_a_config_error(tmp_path: Path, code: str, name: str, message: str) -> None:
    (tmp_path / "broken.py").write_text(code)
    with pytest.raises(ConfigError, match=message):
        check_function(RewardConfig(function=f"{tmp_path}/broken.py:{name}"))


def test_function_can_score_one_task(file: Path) -> None:
    settings = RewardConfig(forms={"region_captioning": f"{file}:reward"}, preset="paper", combine="gated")
    assert not needs_embedder("region_captioning", settings)
    records = [VQA, example("region_captioning", ("a ship",)), VQA]
    assert [s.total for s in score_batch([response("yes")] * 3, records, settings)] == [1.0, 0.25, 1.0]
    with pytest.raises(ConfigError, match=r"reward function 'nowhere\.py:f': .*expected a file"):
        check_function(RewardConfig(forms={"vqa": "nowhere.py:f"}))
    check_function(RewardConfig(forms={"vqa": "nowhere.py:f"}), ["region_captioning"])


def test_function_file_can_import_sibling_modules(tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text("VALUE = 0.75")
    (tmp_path / "mine.py").write_text("import helper\ndef reward(response, target): return helper.VALUE")
    (score,) = score_batch([response("a")], [VQA], RewardConfig(function=f"{tmp_path}/mine.py:reward"))
    assert score.accuracy == 0.75


def test_reward_section_accepts_a_function_string(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("reward: mine.py:reward\n")
    assert load_config(str(tmp_path / "run.yaml")).reward == RewardConfig(function="mine.py:reward")
    assert load_config("demo", ["reward=mine.py:reward"]).reward.function == "mine.py:reward"
    both = load_config("demo", ["reward.time_limit_s=1", "reward=mine.py:reward", "reward.beta=2"]).reward
    assert (both.function, both.time_limit_s, both.beta) == ("mine.py:reward", 1, 2)
    assert load_config("demo", ["reward.function=mine.py:reward", "reward.time_limit_s=2"]).reward.time_limit_s == 2
    check_function(RewardConfig())
    with pytest.raises(ConfigError, match=r"reward\.function"):
        load_config("demo", ["reward=mine:reward"])


def test_score_command_accepts_a_function(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "in.jsonl"
    record = {"id": "a", "task": "image_captioning", "response": response("a"), "target": ["b"]}
    source.write_text(json.dumps(record) + "\n")
    assert main(["score", str(source), f"reward={file}:reward"]) == 0
    assert json.loads(capsys.readouterr().out)["total"] == 1.25
    assert main(["score", str(source), f"reward={file}:nothing"]) == 1
    assert "expected a function 'nothing'" in capsys.readouterr().err
