"""The command line: quick help, and one clear error for wrong input."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from geovlm_ray.cli import main


def test_help_loads_no_heavy_package() -> None:
    code = (
        "import sys\nfrom geovlm_ray.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'ray', 'vllm', 'transformers', 'numpy', 'pydantic'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for command in ("train", "sft", "score", "report", "data", "doctor"):
        assert command in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "demmo"], "did you mean 'demo'"),
        (["train", "demo", "learner.learning_rate=1"], "unknown key 'learner.learning_rate'"),
        (["train", "demo", "lerner.lr=1"], "did you mean 'learner'"),
        (["train", "demo", "rollout.group_size=1"], "rollout.group_size"),
        (["train", "demo", "learner.lr=quick"], "learner.lr"),
        (["train", "demo", "rollout.temperature=.nan"], "rollout.temperature"),
        (["train", "demo", "run.steps"], "expected key=value"),
        (["train", "demo", "run.name=a/b"], "run.name"),
        (["train", "demo", "rollout.max_tokens=9000"], "rollout.max_model_len"),
        (["train", "demo", "data.stages=[{steps: 3, tasks: [segmentation]}]"], "segmentation"),
        (["train", "demo", "model.path=/nowhere/at/all"], "/nowhere/at/all"),
        (["train", "demo", "rollout.kv_cache_gb=100000"], "rollout.kv_cache_gb"),
        (["train", "demo", "data.source=samples", "data.path=/nowhere.jsonl"], "/nowhere.jsonl"),
        (["train", "demo", "data.source=tfrecords"], "data.source"),
        (["report", "/nowhere"], "/nowhere"),
        (["score", "/nowhere.jsonl"], "/nowhere.jsonl"),
    ],
)
def test_wrong_input_gets_one_line_that_names_it(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert main(arguments) == 1
    error = capsys.readouterr().err.strip()
    assert message in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_a_model_that_is_no_vlm_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    assert main(["train", "demo", f"model.path={tmp_path}"]) == 1
    assert "found model_type 'llama'" in capsys.readouterr().err


def test_overrides_may_stand_before_and_after_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "demo", "run.steps=3", "--local", "--dry-run", "rollout.group_size=4"]) == 0
    assert "placement: everything in this process" in capsys.readouterr().out
