"""Limits of user reward functions: form, memory, time, environment, and the processes that they start."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from geovlm_ray.core.errors import ConfigError
from geovlm_ray.rewards import RewardConfig, score_batch
from geovlm_ray.rewards.isolated import check_function, isolated
from tests.unit.reward_examples import example, response

CODE = """
import decimal, fractions, os, pathlib, stat, sys, time

HERE = pathlib.Path(__file__).parent
KEPT = []

def reward(response, target):
    for word, act in ACTS.items():
        if word in response:
            return act()
    return 0.25

def throw(error):
    raise error

def sockets():
    return [fd for fd in range(3, 20) if os.path.exists(f"/proc/self/fd/{fd}") and stat.S_ISSOCK(os.fstat(fd).st_mode)]

def write(text):
    for fd in sockets():
        os.write(fd, text.encode())
    return 0.5

def trickle():
    for _ in range(80):
        write(" ")
        time.sleep(0.05)

def nested():
    value = []
    for _ in range(100_000):
        value = [value]
    return value

def leak():
    while True:
        KEPT.append(bytearray(10_000_000))

def daemon(then):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            (HERE / "daemon").write_text(str(os.getpid()))
            time.sleep(600)
        os._exit(0)
    while not (HERE / "daemon").exists() or not (HERE / "daemon").read_text():
        time.sleep(0.01)
    return then()

class Odd:
    def __float__(self):
        sys.exit(1)

class Unspeakable(Exception):
    def __str__(self):
        raise ValueError

ACTS = {
    "HUGE": lambda: 10**400, "VAST": lambda: 10**5000, "PART": lambda: {"accuracy": 1, "size": 10**400},
    "INFINITE": lambda: float("inf"), "DECIMAL": lambda: decimal.Decimal("0.5"), "NANS": lambda: decimal.Decimal("NaN"),
    "FRACTION": lambda: fractions.Fraction(1, 2), "COMPLEX": lambda: 1j, "BYTES": lambda: b"1", "ODD": Odd,
    "NESTED": nested, "QUIT": lambda: throw(SystemExit(0)), "STOP": lambda: throw(KeyboardInterrupt()),
    "SILENT": lambda: throw(Unspeakable()), "ALLOCATE": lambda: bytearray(3_000_000_000), "LEAK": leak,
    "KEY": lambda: {("a",): 1}, "ESCAPE": lambda: {"accuracy": 1, chr(27) + "[2J": 1},
    "LONG": lambda: {"accuracy": 1, "x" * 101: 1}, "JUNK": lambda: write("[[1]]\\n"), "TRICKLE": trickle,
    "FORGED": lambda: write('{"call": 0, "value": 1.0}\\n'), "BRACKETS": lambda: write("[" * 60_000 + "\\n"),
    "SHUT": lambda: [os.close(fd) for fd in sockets()], "TWICE": lambda: os.fork() and 0.5 or 0.75,
    "HANG": lambda: time.sleep(600), "ALONE": lambda: daemon(ACTS["HANG"]), "LEFT": lambda: daemon(lambda: 0.5),
    "DIE": lambda: daemon(lambda: os.kill(os.getpid(), 9)), "GROUP": lambda: daemon(lambda: os.killpg(0, 9)),
}
"""
VQA = example("vqa", "yes")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(CODE)
    return tmp_path / "mine.py"


def config(file: Path, **settings: Any) -> RewardConfig:
    return RewardConfig(**{"function": f"{file}:reward", "time_limit_s": 1.5, "memory_limit_gb": 1, **settings})


def ended(pid: int) -> bool:
    """Whether a process ends within a few seconds."""
    deadline = time.monotonic() + 5
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    return not Path(f"/proc/{pid}").exists()


FAILURES = "HUGE VAST PART INFINITE NANS COMPLEX BYTES ODD NESTED QUIT STOP SILENT ALLOCATE LEAK KEY ESCAPE LONG"
INTERFERENCES = "JUNK FORGED BRACKETS SHUT"


def test_failure_is_that_completions_error_and_no_other(file: Path) -> None:
    words = [*FAILURES.split(), *INTERFERENCES.split()]
    responses = [response(text) for word in words for text in (word, "a")]
    scores = score_batch(responses, [VQA] * len(responses), config(file, time_limit_s=30))
    statuses = {word: (scores[2 * k].status, scores[2 * k].accuracy) for k, word in enumerate(words)}
    assert {word: statuses[word] for word in FAILURES.split()} == dict.fromkeys(FAILURES.split(), ("error", 0.0))
    # What a function writes itself may be read before or after its own score.
    assert {statuses[word] for word in INTERFERENCES.split()} <= {("error", 0.0), ("ok", 0.5)}
    assert [(s.status, s.accuracy) for s in scores[1::2]] == [("ok", 0.25)] * len(words)


def test_numbers_of_other_types_are_accepted_and_a_forked_function_answers_once(file: Path) -> None:
    words = ("DECIMAL", "FRACTION", "TWICE", "a", "a")
    scores = score_batch([response(w) for w in words], [VQA] * len(words), config(file))
    assert [s.status for s in scores] == ["ok"] * 5
    assert [s.accuracy for s in scores[:2]] == [0.5, 0.5]
    assert scores[2].accuracy in (0.5, 0.75)
    assert [s.accuracy for s in scores[3:]] == [0.25, 0.25]


def test_memory_limit_is_named_in_the_problem(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    for word in ("ALLOCATE", "LEAK"):
        score_batch([response(word)], [VQA], config(file, memory_limit_gb=0.25))
        assert "reserved more than 0.25 GiB (reward.memory_limit_gb)" in caplog.messages[-1]
    (tmp := file.with_name("large.py")).write_text(
        "X = bytearray(3_000_000_000)\ndef reward(response, target): return 1"
    )
    with pytest.raises(
        ConfigError, match=r"large\.py:reward': MemoryError: .*more than 1 GiB \(reward\.memory_limit_gb"
    ):
        check_function(config(tmp))


def test_a_call_has_one_deadline(file: Path) -> None:
    settings = config(file, time_limit_s=0.5)
    check_function(settings)
    start = time.monotonic()
    (score,) = score_batch([response("TRICKLE")], [VQA], settings)
    assert score.status == "timeout"
    assert time.monotonic() - start < 2


@pytest.mark.parametrize("word", ["ALONE", "DIE", "GROUP"])
def test_process_in_a_new_session_ends_with_the_call_that_failed(file: Path, word: str) -> None:
    settings = config(file, time_limit_s=0.5)
    statuses = [s.status for s in score_batch([response(word), response("a")], [VQA] * 2, settings)]
    assert statuses == ["timeout" if word == "ALONE" else "error", "ok"]
    assert ended(int((file.parent / "daemon").read_text()))


def test_processes_end_with_the_caller_also_during_a_call(file: Path) -> None:
    code = (
        "import os, sys, threading\n"
        "from geovlm_ray.rewards import RewardConfig\n"
        "from geovlm_ray.rewards.isolated import isolated\n"
        "from tests.unit.reward_examples import example\n"
        "function = isolated(sys.argv[1], RewardConfig(time_limit_s=600))\n"
        "status = function.score('LEFT', example('vqa', 'yes'))[0].status\n"
        "threading.Thread(target=function.score, args=('HANG', example('vqa', 'yes')), daemon=True).start()\n"
        "print(status, function._process.pid, flush=True)\n"
        "sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, f"{file}:reward"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as caller:
        assert caller.stdout
        status, pid = caller.stdout.readline().split()
        daemon = int((file.parent / "daemon").read_text())
        assert (status, Path(f"/proc/{daemon}").exists()) == ("ok", True)
        caller.kill()
    assert ended(int(pid))
    assert ended(daemon)


def test_function_sees_only_allowed_environment_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import os\ndef f(response, target): return {'accuracy': 1, **{n: 1 for n in os.environ}}"
    (tmp_path / "names.py").write_text(code)
    names = ("HF_TOKEN", "WANDB_API_KEY", "PGPASS", "DATABASE_URL", "SOMETHING_ELSE", "MY_ENDPOINT")
    for name in names:
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("TZ", "UTC")
    settings = RewardConfig(function=f"{tmp_path / 'names.py'}:f", environment=("MY_ENDPOINT",))
    (score,) = score_batch([response("a")], [VQA], settings)
    assert score.status == "ok"
    assert {"PATH", "TZ", "MY_ENDPOINT"} <= score.components.keys()
    assert not set(names[:-1]) & score.components.keys()
    monkeypatch.delenv("MY_ENDPOINT")
    isolated(settings.function or "", settings).close()
    with pytest.raises(ConfigError, match=r"reward\.environment: expected the variable MY_ENDPOINT to be set"):
        check_function(settings)


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("class reward:\n  def __init__(self, response, target): ...", "a class"),
        ("async def reward(response, target): return 1", "an async function"),
        ("def reward(response, target): yield 1", "a generator"),
        ("async def reward(response, target): yield 1", "a generator"),
        ("class A:\n  async def __call__(self, response, target): return 1\nreward = A()", "an async function"),
        (
            "import functools\nasync def f(x, response, target): ...\nreward = functools.partial(f, 1)",
            "an async function",
        ),
        ("def reward(*, response, target): return 1", r"\(\*, response, target\): too many positional arguments"),
        ("def reward(target, response): return 1", r"\(target, response\)"),
        ("def reward(question, target): return 1", r"\(question, target\)"),
        ("def reward(completions, **others): return [1]", "too many positional"),
        ("def reward(): return 1", "too many positional"),
        ("reward = dict.fromkeys\nreward = type", "a class"),
        ("reward = min", "no signature found"),
        ("import sys\nsys.exit(3)", "SystemExit: 3"),
    ],
)
def test_function_of_another_form_is_refused_before_the_start(tmp_path: Path, code: str, found: str) -> None:
    (tmp_path / "mine.py").write_text(code)
    form = (
        ""
        if "SystemExit" in found
        else r"expected a plain function of \(response, target\) and optionally id, .*, found "
    )
    with pytest.raises(ConfigError, match=rf"mine\.py:reward': .*{form}.*{found}"):
        check_function(RewardConfig(function=f"{tmp_path}/mine.py:reward"))


@pytest.mark.parametrize(
    "code",
    [
        "def reward(answer, truth): return 1",
        "def reward(response, target, *, labels, **others): return 1",
        "def reward(*arguments): return 1",
        "class A:\n  def __call__(self, response, target): return 1\nreward = A()",
        "import functools\ndef f(x, response, target): return x\nreward = functools.partial(f, 1)",
        "import functools\nasync def f(response, target): ...\n@functools.wraps(f)\ndef reward(*a, **k): return 1",
    ],
)
def test_other_callables_of_the_documented_form_are_called(tmp_path: Path, code: str) -> None:
    (tmp_path / "mine.py").write_text(code)
    (score,) = score_batch([response("a")], [VQA], RewardConfig(function=f"{tmp_path}/mine.py:reward"))
    assert (score.status, score.accuracy) == ("ok", 1.0)
