"""Command line: fast help, and one-line errors for wrong input."""

from __future__ import annotations

import argparse
import fcntl
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from geovlm_ray.cli import main
from geovlm_ray.config import load_config, to_yaml
from geovlm_ray.data.scenes import render_scene
from geovlm_ray.model.loading import model_folder
from tests.unit.datasets import example, write_dataset, write_image

TRAIN_RECORDS = ["train", "demo", "data.source=samples", "data.stages=[]", "evaluation.num_examples=0"]


def test_help_imports_no_heavy_package() -> None:
    code = (
        "import sys\nfrom geovlm_ray.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'ray', 'vllm', 'transformers', 'numpy', 'pydantic'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    for command in ("train", "sft", "score", "report", "data", "doctor"):
        assert command in process.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "demmo"], "did you mean 'demo'"),
        (["train", "demo", "checkpoint.url=ftp://me:hidden@disk/runs"], "expected a URL without a password"),
        (["train", "demo", "checkpoint.url=nowhere://disk/runs"], "expected a URL that fsspec supports"),
        (["train", "demo", "placement.rollout.num_gpus=1.5"], "a whole number of GPUs"),
        (["train", "demo", "run.trace_steps=[0]"], "run.trace_steps.0"),
        (["train", "demo", "learner.learning_rate=1"], "unknown key 'learner.learning_rate'"),
        (["train", "demo", "lerner.lr=1"], "did you mean 'learner'"),
        (["train", "demo", "evaluation.scenes=1"], "'evaluation.scenes'; it is now 'evaluation.num_examples'"),
        (["train", "demo", "rollout.group_size=1"], "rollout.group_size"),
        (["train", "demo", "learner.lr=quick"], "learner.lr"),
        (["train", "demo", "rollout.temperature=.nan"], "rollout.temperature"),
        (["train", "demo", "rollout.temperature=0.001"], "rollout.temperature: Input should be greater than or equal"),
        (["train", "demo", "rollout.top_p=0.9"], "'rollout.top_p'; completions are sampled from the whole"),
        (["train", "demo", "rollout.top_k=50"], "lower rollout.temperature instead"),
        (["train", "demo", "learner.tis_cap=2"], "it is now 'learner.importance_high'"),
        (["train", "demo", "learner.decay=true"], "it is now 'learner.lr_decay'"),
        (["train", "demo", "learner.objective=ppo"], "learner.objective: expected one of grpo, dr_grpo"),
        (["train", "demo", "learner.group_accuracy=[0.9, 0.1]"], "expected 0 <= low <= high <= 1, found 0.9, 0.1"),
        (["train", "demo", "model.freeze_vision=true", "model.lora={targets: all}"], "targets=language, found all"),
        (["train", "demo", "run.steps"], "expected key=value"),
        (["train", "demo", "run.name=a/b"], "run.name"),
        (["train", "demo", "run.name=.."], "run.name"),
        (["train", "demo", "rollout.max_model_len=4096"], "expected at most 2048"),
        (["train", "demo", "learner.lr=.inf"], "learner.lr"),
        (["train", "demo", "run.steps=[1"], "not valid YAML"),
        (["data", "scenes", "--each", "0"], "--each"),
        (["data", "scenes", "--out", "scenes.xyz"], "scenes.xyz"),
        (["train", "demo", "rollout.max_tokens=9000"], "rollout.max_model_len"),
        (["train", "demo", "data.stages=[{steps: 3, tasks: [segmentation]}]"], "segmentation"),
        (["train", "demo", "reward.forms={vqa: detection}"], "'detection' does not score vqa"),
        (["train", "demo", "reward.forms={vqa: jaccard_robust}"], "'jaccard_robust'; it is now 'equivalence'"),
        (["train", "demo", "evaluation.every=2", "evaluation.benchmarks=[drawn-vqaa]"], "did you mean 'drawn-vqa'"),
        (["train", "demo", "model.path=/nowhere/at/all"], "/nowhere/at/all"),
        (["train", "demo", "rollout.kv_cache_gb=100000"], "rollout.kv_cache_gb"),
        (["train", "demo", "data.source=samples", "data.path=/nowhere.jsonl"], "/nowhere.jsonl"),
        (["train", "demo", "data.source=tfrecords"], "data.source"),
        (["evaluate", "tiny", "--benchmarks", "mine.jsonl"], "the path of an existing dataset"),
        (["study", "kl", "--recipe", "nowhere"], "'nowhere' is neither a recipe"),
        (["web", "tiny", "--host", "a..b"], "--host a..b --port 7860: expected a free address, found"),
        (["report", "~nobody-here/run"], "~nobody-here/run: expected a run directory"),
        (["report", "/nowhere"], "/nowhere"),
        (["score", "/nowhere.jsonl"], "/nowhere.jsonl"),
    ],
)
def test_wrong_input_is_a_one_line_error_that_names_it(
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
    assert "hidden" not in error
    assert message in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_text_only_model_is_rejected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    assert main(["train", "demo", f"model.path={tmp_path}"]) == 1
    assert "found model_type 'llama'" in capsys.readouterr().err


def test_overrides_may_precede_and_follow_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "demo", "run.steps=3", "--local", "--dry-run", "rollout.group_size=4"]) == 0
    assert "placement: everything in this process" in capsys.readouterr().out


@pytest.mark.parametrize(("image", "message"), [("absent.png", "expected a file"), ("cut.png", "a decodable image")])
def test_missing_or_truncated_image_fails_before_the_run_starts(
    image: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    render_scene("scene:vqa:0:0:0").save("intact.png")
    Path("cut.png").write_bytes(Path("intact.png").read_bytes()[:500])
    records = [
        {"id": name, "task": "vqa", "images": [name], "prompt": "what ?", "reference": "x"}
        for name in ("intact.png", image)
    ]
    Path("records.jsonl").write_text("\n".join(map(json.dumps, records)))
    assert main([*TRAIN_RECORDS, "data.path=records.jsonl"]) == 1
    error = capsys.readouterr().err
    assert f"record '{image}'" in error
    assert message in error
    assert len(error.strip().splitlines()) == 1


def test_prompt_longer_than_the_context_is_rejected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    render_scene("scene:vqa:0:0:0").save("a.png")
    record = {"id": "long", "task": "vqa", "images": ["a.png"], "prompt": "what ? " * 500, "reference": "x"}
    Path("records.jsonl").write_text(json.dumps(record))
    assert main([*TRAIN_RECORDS, "data.path=records.jsonl"]) == 1
    assert "record 'long'" in capsys.readouterr().err


def test_record_without_images_is_rejected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_dataset(tmp_path / "data", [example(1, ())])
    assert main([*TRAIN_RECORDS, "data.source=parquet", f"data.path={folder}"]) == 1
    assert (
        "record 'r1' (part-00000.parquet, row 0): images: expected at least one, found none" in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    "values", [{}, {"split": "test", "task": "image_captioning", "target": ("x",)}], ids=["no split", "no task"]
)
def test_missing_validation_records_fail_before_the_run_starts(
    values: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_image(tmp_path / "data" / "a.png", 0)
    records = [example(1, ("a.png",)), example(2, ("a.png",), **values)]
    folder = write_dataset(tmp_path / "data", records)
    run = [*TRAIN_RECORDS, "data.source=parquet", f"data.path={folder}", "run.steps=1"]
    for dry in ([], ["--dry-run"]):
        assert main([*run, *dry, "--local", f"run.dir={tmp_path / 'runs'}", "evaluation.num_examples=4"]) == 1
        captured = capsys.readouterr()
        output = " ".join((captured.out + captured.err).split())
        assert "evaluation.num_examples=4: expected records of vqa" in output
        assert "in splits other than train (data.splits), found none; set evaluation.num_examples=0" in output
    assert not (tmp_path / "runs").exists()
    write_dataset(tmp_path / "data", [*records, example(3, ("a.png",), split="test")])
    assert main([*run, "--dry-run", "--local", "evaluation.num_examples=4"]) == 0


def test_run_directory_in_use_is_rejected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geovlm_ray.core.locks.LOCK_TIMEOUT_S", 0.5)
    folder = tmp_path / "taken"
    folder.mkdir()
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert main(["train", "demo", "--local", f"run.dir={tmp_path}", "run.name=taken"]) == 1
    assert "in use by another process" in capsys.readouterr().err


def test_run_directory_of_another_configuration_lists_the_changed_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "config.yaml").write_text(to_yaml(load_config("demo", ["run.name=other", "learner.lr=0.5"])))
    assert main(["train", "demo", "--local", f"run.dir={tmp_path}", "run.name=other", "learner.lr=1e-4"]) == 1
    error = capsys.readouterr().err
    assert "learner.lr was 0.5, is now 0.0001" in error


def test_model_with_truncated_weights_or_no_tokenizer_is_rejected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, damage in (
        ("truncated", lambda folder: (folder / "model.safetensors").write_bytes(b"\x00" * 1000)),
        ("no-tokenizer", lambda folder: (folder / "tokenizer.json").unlink()),
    ):
        folder = tmp_path / name
        shutil.copytree(model_folder("tiny"), folder)
        damage(folder)
        assert main(["train", "demo", "--dry-run", "--local", f"model.path={folder}"]) == 1
        assert str(folder) in capsys.readouterr().out.replace("\n", "")


def test_run_directory_that_cannot_be_created_is_rejected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("in the way")
    assert main(["train", "demo", "--local", f"run.dir={tmp_path / 'file'}"]) == 1
    assert f"{tmp_path / 'file'} is a file" in capsys.readouterr().err


def test_files_that_are_not_utf8_are_rejected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "latin"
    path.write_bytes(b'{"id": "caf\xe9"}\n')
    assert main(["train", str(path)]) == 1
    assert main(["train", "demo", "data.source=samples", f"data.path={path}", "data.stages=[]"]) == 1
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 2
    assert f"{path}: expected UTF-8 text, found byte 0xe9" in errors[0]
    assert f"{path}, record 1: expected UTF-8 text, found byte 0xe9" in errors[1]


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("metrics.jsonl", b'{"step": 1}\n[1]\n'),
        ("metrics.jsonl", b"\xe9\n"),
        ("summary.json", b"["),
        ("summary.json", b"[]"),
        ("config.yaml", b"run: [a"),
    ],
)
def test_report_names_the_invalid_file(
    file: str, content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rollouts").mkdir()
    (tmp_path / "config.yaml").write_text(to_yaml(load_config("demo")))
    (tmp_path / file).write_bytes(content)
    assert main(["report", str(tmp_path)]) == 1
    error = capsys.readouterr().err.strip()
    assert file in error
    assert len(error.splitlines()) == 1


def test_unwritable_output_path_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = tmp_path / "records.jsonl"
    records.write_text('{"id": 1, "task": "vqa", "response": "x", "target": "y"}\n')
    assert main(["score", str(records), "--out", str(tmp_path / "absent" / "out")]) == 1
    assert str(tmp_path / "absent" / "out") in capsys.readouterr().err


def test_interrupt_that_a_library_replaces_by_its_own_error_is_still_an_interrupt(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted_import(args: argparse.Namespace) -> int:
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt as error:
            raise ModuleNotFoundError("Could not import module 'AutoModel'") from error
        return 0

    monkeypatch.setattr("geovlm_ray.commands.doctor.run", interrupted_import)
    assert main(["doctor"]) == 128 + signal.SIGTERM
    assert capsys.readouterr().err == "geovlm-ray doctor: interrupted\n"
    monkeypatch.setattr("geovlm_ray.commands.doctor.run", lambda args: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        main(["doctor"])


def test_package_runs_as_a_module() -> None:
    command = [sys.executable, "-m", "geovlm_ray", "--version"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.startswith("geovlm-ray ")
