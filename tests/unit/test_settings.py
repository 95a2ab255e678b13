"""Settings as YAML and as a reference: complete, described, and read back to the same configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from geovlm_ray.cli import main
from geovlm_ray.config import flat, load_config, recipe_names
from geovlm_ray.report.settings import flat_values, reference, settings

DOCS = Path(__file__).parents[2] / "docs" / "settings.md"


def test_every_setting_has_a_description_and_a_kind() -> None:
    assert [each.key for s in settings() for each in (s, *s.entries) if not each.description] == []
    assert len(settings()) > 150
    assert len({s.key for s in settings()}) == len(settings())


@pytest.mark.parametrize("recipe", recipe_names())
def test_printed_yaml_is_the_recipe(recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", recipe]) == 0
    file = tmp_path / "mine.yaml"
    file.write_text(capsys.readouterr().out)
    assert flat(load_config(str(file))) == flat(load_config(recipe))


def test_overrides_search_and_differences(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["config", "demo", "rollout.group_size=3", "--grep", "completions per prompt"]) == 0
    output = capsys.readouterr().out
    assert "rollout:\n" in output
    assert "\n  group_size: 3\n" in output
    assert "lr:" not in output
    assert main(["config", "geovlm-r1", "--diff", "qwen3-vl"]) == 0
    lines = capsys.readouterr().out.splitlines()
    values = [line for line in lines if ": " in line and not line.lstrip().startswith("#")]
    ours, theirs = (flat_values(load_config(name)) for name in ("geovlm-r1", "qwen3-vl"))
    assert len(values) == sum(ours[key] != theirs[key] for key in ours)
    assert any(line.startswith("  path: Qwen/Qwen2.5-VL-3B-Instruct  # qwen3-vl: Qwen/Qwen3-VL") for line in values)


def test_settings_within_a_setting_are_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "geovlm-r1", "--grep", "adapter"]) == 0
    output = capsys.readouterr().out
    assert "model.lora.rank: rank of the adapter (integer >= 1, <= 256; default: 16)" in output
    assert "\n  lora: null\n" in output
    documented = reference()
    assert all(f"`{key}`" in documented for key in ("data.stages[].steps", "tasks.NAME.reward", "model.lora.alpha"))
    assert main(["config", "demo", "rank=3"]) == 1
    assert "did you mean 'model.lora.rank'" in capsys.readouterr().err


def test_unknown_words_and_recipes_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "--grep", "no such word"]) == 1
    assert "--grep no such word: expected a word of a setting, found none with it" in capsys.readouterr().err
    assert main(["config", "dmeo"]) == 1
    assert "did you mean" in capsys.readouterr().err


def test_reference_in_the_docs_is_that_of_the_code() -> None:
    text = DOCS.read_text()
    assert text[text.index("| key |") :] == reference(), "python -m geovlm_ray.report.settings > docs/settings.md"
