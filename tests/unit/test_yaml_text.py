"""Configuration texts: YAML types, keys given twice, environment variables, home folders, byte order marks."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from geovlm_ray.cli import main
from geovlm_ray.config import load_config
from geovlm_ray.core.errors import ConfigError
from geovlm_ray.core.yaml_text import parse_yaml
from geovlm_ray.model.loading import model_folder
from geovlm_ray.serving.model_ref import resolve_model


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("2026-05-01", "2026-05-01"),
        ("1:30", "1:30"),
        ("007", "007"),
        ("7", 7),
        ("1e-5", 1e-5),
        ("1.5", 1.5),
        ("null", None),
        ("[a, {b: 2}]", ["a", {"b": 2}]),
        ('"no"', "no"),
    ],
)
def test_values_have_the_types_of_the_core_schema(text: str, value: object) -> None:
    assert parse_yaml(text, "here") == value
    assert type(parse_yaml(text, "here")) is type(value)


@pytest.mark.parametrize("name", ["no", "2026-05-01", "2026", "007", "1e5x"])
def test_run_names_are_texts(name: str) -> None:
    assert load_config("demo", [f"run.name={name}"]).run.name == name


@pytest.mark.parametrize("text", ["run: {name: a}\nrun: {name: b}", "run:\n  seed: 1\n  name: a\n  seed: 2"])
def test_a_key_given_twice_is_refused(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    assert main(["train", str(path)]) == 1
    error = capsys.readouterr().err
    assert f"{path}: not valid YAML: the key " in error
    assert "is given twice" in error
    assert "Traceback" not in error


def test_a_merged_key_may_be_given_again() -> None:
    text = "base: &b {x: 1}\na: {n: {m: &d {<<: *b, x: 2}}}\ne: {<<: *d}\nf: {<<: [*b, *d], x: 3}"
    assert parse_yaml(text, "here") == {"base": {"x": 1}, "a": {"n": {"m": {"x": 2}}}, "e": {"x": 2}, "f": {"x": 3}}


def test_environment_variables_have_an_explicit_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_FOLDER", "/models")
    assert parse_yaml("path: ${MODEL_FOLDER}/a", "here") == {"path": "/models/a"}
    assert parse_yaml("$MODEL_FOLDER", "here") == "$MODEL_FOLDER"
    monkeypatch.delenv("MODEL_FOLDER")
    with pytest.raises(ConfigError, match="here: expected the environment variable MODEL_FOLDER of"):
        parse_yaml("${MODEL_FOLDER}", "here")


def test_settings_of_a_model_folder_do_not_read_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "hidden")
    folder = Path(shutil.copytree(model_folder("tiny"), tmp_path / "model"))
    (folder / "geovlm_ray.yaml").write_text("prompt: {system: 'say ${SECRET_TOKEN}'}\n")
    assert resolve_model(str(folder)).config.prompt.system == "say ${SECRET_TOKEN}"


def test_paths_may_begin_with_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    settings = ["run.dir=~/runs", "model.path=~/m", "data.path=~/d", "reward.function=~/f.py:g", "evaluation.data=~/e"]
    config = load_config("demo", settings)
    found = (config.run.dir, config.model.path, config.data.path, config.reward.function, config.evaluation.data)
    assert found == tuple(f"{tmp_path}/{name}" for name in ("runs", "m", "d", "f.py:g", "e"))
    (tmp_path / "a.jsonl").write_text('{"id": 1, "task": "vqa", "response": "", "target": "yes"}\n')
    assert main(["score", "~/a.jsonl"]) == 0


def test_byte_order_marks_are_read_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe, answers = tmp_path / "recipe.yaml", tmp_path / "answers.jsonl"
    recipe.write_text("run: {name: marked}\n", encoding="utf-8-sig")
    assert load_config(str(recipe)).run.name == "marked"
    answers.write_text('{"id": 1, "task": "vqa", "response": "", "target": "yes"}\n', encoding="utf-8-sig")
    assert main(["score", str(answers)]) == 0
    assert '"id": 1' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: " + "x" * 2**18, "expected at most 262,144 characters of YAML, found 262,147"),
        (
            "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{f'*a{n - 1}, ' * 9}]\n" for n in range(1, 20)),
            "expected at most 100,000 values, found more",
        ),
        (
            "a0: &a0 {k: v}\n" + "".join(f"a{n}: &a{n} {{<<: [{f'*a{n - 1}, ' * 9}]}}\n" for n in range(1, 11)),
            "not valid YAML: expected at most 100,000 merged values, found more",
        ),
        ("a: &a {b: *a}", "not valid YAML"),
        ("[" * 10_000, "not valid YAML"),
        ("{[a, b]: 1, {}: 2}", "not valid YAML"),
        ("a: !!python/object/apply:os.system [ls]", "not valid YAML"),
    ],
    ids=["long", "aliases", "merges", "cycle", "nested", "keys", "tag"],
)
@pytest.mark.parametrize("variables", [True, False])
def test_texts_that_would_exhaust_memory_are_errors(text: str, message: str, variables: bool) -> None:
    with pytest.raises(ConfigError, match=f"^here: {message}"):
        parse_yaml(text, "here", variables=variables)
