"""A task and plugins of a configuration, from its records to rewards, metrics and pages."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
import yaml

from geovlm_ray.cli import main
from geovlm_ray.config import Config, check_unchanged, load_config, reward_config, to_yaml
from geovlm_ray.core.errors import ConfigError, DataError
from geovlm_ray.core.schema import Example
from geovlm_ray.data import parallel
from geovlm_ray.data.parallel import Workers
from geovlm_ray.data.parquet import open_datasets
from geovlm_ray.data.quarantine import read_quarantine
from geovlm_ray.data.records import target_from_json
from geovlm_ray.data.sampler import PromptSampler
from geovlm_ray.data.sources import open_stream
from geovlm_ray.evaluation.custom import custom_benchmarks
from geovlm_ray.evaluation.metrics.paper import paper_metrics
from geovlm_ray.evaluation.metrics.sound import AnsweredExample, sound_metrics
from geovlm_ray.model.prompts import PromptEncoder
from geovlm_ray.rewards import needs_embedder, score_batch
from geovlm_ray.rewards.isolated import check_function
from geovlm_ray.tasks import TASKS, extensions, find_task
from geovlm_ray.tasks.extensions import Extensions, activate
from tests.unit.datasets import write_dataset, write_image
from tests.unit.reward_examples import response

RECIPE = """
tasks:
  object_counting:
    target: vqa
    instruction: Answer with a number.
    reward: rewards.py:count_error
data:
  source: parquet
  path: counts
  frame: percent
  dialect: brackets
  stages: [{tasks: [object_counting], steps: 1}]
prompt:
  instructions: true
"""
REWARD = """
def count_error(response, target):
    answer = response.split("<answer>")[1].split("</answer>")[0]
    return 1 / (1 + abs(int(answer) - int(target))) if answer.isdecimal() else 0.0
"""
TASK = {"target": "vqa", "instruction": "Answer with a number.", "reward": "rewards.py:count_error"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with recipe and reward."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rewards.py").write_text(REWARD)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path


def write_records(folder: Path, counts: int = 4) -> Path:
    """A samples file with one record of the task per image."""
    folder.mkdir()
    lines = []
    for k in range(counts):
        write_image(folder / f"{k}.png", k)
        record = {"id": f"r{k}", "task": "object_counting", "images": [f"{k}.png"], "prompt": f"how many ships , {k} ?"}
        lines.append(json.dumps({**record, "reference": str(k), "split": "test" if k % 2 else "train"}))
    (folder / "records.jsonl").write_text("\n".join(lines))
    return folder / "records.jsonl"


def load_with(tasks: dict[str, object], *overrides: str) -> Config:
    Path("own.yaml").write_text(yaml.safe_dump({"tasks": tasks}))
    return load_config("own.yaml", overrides)


def test_task_is_converted_sampled_prompted_scored_and_measured(folder: Path, encoder: PromptEncoder) -> None:
    records = write_records(folder / "source")
    for command in (
        ["convert", "samples", str(records), "counts"],
        ["validate", "counts"],
        ["stats", "counts", "--json", "stats.json"],
        ["preview", "counts", "--out", "page.html"],
    ):
        assert main(["data", *command, "--recipe", "recipe.yaml"]) == 0
    assert json.loads(Path("stats.json").read_text())["tasks"]["object_counting"]["records"] == 4
    assert 'id="object_counting"' in Path("page.html").read_text()

    config = load_config("recipe.yaml")
    check_function(config.reward)
    stream = open_stream(config.data)
    (prompt, _) = PromptSampler(stream, config.data, 2).batch(0)
    instructed = PromptEncoder(encoder.processor, encoder.config.model_copy(update={"instructions": True}))
    assert f"{prompt.example.question}\nAnswer with a number." in instructed.text(prompt.example)

    assert not needs_embedder("object_counting", config.reward)
    two = next(e for e in (stream.of_task("object_counting", k) for k in range(2)) if e.target == "2")
    scores = score_batch([response(text) for text in ("2", "3", "none")], [two] * 3, config.reward)
    assert [(s.total, s.status) for s in scores] == [(2.0, "ok"), (1.5, "ok"), (1.0, "ok")]

    (benchmark,) = custom_benchmarks([Path("counts")], folder / "out", lambda n, text: None)
    assert (benchmark.name, benchmark.task, benchmark.split) == ("counts-object_counting", "object_counting", "test")
    answered = [AnsweredExample("2", two), AnsweredExample("9", two)]
    assert paper_metrics(answered) == {"VQA accuracy": 0.5}
    assert sound_metrics(answered)["accuracy"].value == 0.5


def test_score_and_evaluate_commands_take_tasks_from_a_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    record = {"id": "a", "task": "object_counting", "response": response("6"), "target": "7"}
    Path("in.jsonl").write_text(json.dumps(record))
    assert main(["score", "in.jsonl", "--recipe", "recipe.yaml"]) == 0
    assert json.loads(capsys.readouterr().out)["total"] == 1.5
    assert main(["score", "in.jsonl", "--recipe", "recipe.yaml", "reward.forms.object_counting=jaccard"]) == 0
    assert json.loads(capsys.readouterr().out)["total"] == 1.0
    assert main(["evaluate", "--predictions", "in.jsonl", "--recipe", "recipe.yaml", "--json", "metrics.json"]) == 0
    assert json.loads(Path("metrics.json").read_text())["paper"] == {"VQA accuracy": 0.0}


def test_function_of_the_reward_section_replaces_that_of_a_task() -> None:
    Path("rewards.py").write_text(REWARD + "def half(response, target): return 0.5")
    config = load_config("recipe.yaml", ["reward=rewards.py:half"])
    example = Example("1", "object_counting", (), "", "7")
    assert score_batch([response("7")], [example], config.reward)[0].accuracy == 0.5


def test_configuration_with_a_task_is_restored_from_its_file() -> None:
    config = load_config("recipe.yaml")
    Path("saved.yaml").write_text(to_yaml(config))
    assert load_config("saved.yaml") == config
    changed = load_config("recipe.yaml", ["tasks.object_counting.instruction=Count."])
    with pytest.raises(ConfigError, match=r"tasks\.object_counting\.instruction was 'Answer with a number\.'"):
        check_unchanged(changed, Path("saved.yaml"), (), "folder", "choose another")


def test_plugins_of_a_stored_run_are_compared_and_not_imported() -> None:
    Path("evil.py").write_text("raise SystemExit")
    Path("saved.yaml").write_text("plugins: [evil.py]\nlearner: {objective: of_the_plugin}\n")
    with pytest.raises(ConfigError, match=r"plugins was \['evil\.py'\], is now \[\]"):
        check_unchanged(load_config("demo"), Path("saved.yaml"), (), "folder", "choose another")


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ({"vqa": TASK}, r"tasks\.vqa: expected a name other than all, scene_classification, "),
        ({"all": TASK}, r"tasks\.all: expected a name other than all"),
        ({"object counting": TASK}, r"tasks\.object counting.*should match pattern"),
        ({"counts": {**TASK, "target": "number"}}, r"tasks\.counts\.target: .*'classes', 'vqa', .*found 'number'"),
        ({"counts": {**TASK, "rewards": "f1"}}, r"unknown key 'tasks\.counts\.rewards'; did you mean 'reward'"),
        ({"counts": {"target": "vqa"}}, r"tasks\.counts\.instruction: Field required"),
        ({"counts": {**TASK, "reward": "fbeta"}}, r"tasks\.counts\.reward: 'fbeta' does not score vqa; .* jaccard"),
        ({"counts": {**TASK, "reward": "rewards:f"}}, r"'rewards:f' does not score vqa; expected path/file\.py:funct"),
    ],
)
def test_invalid_task_is_a_config_error(tasks: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_with(tasks)


def test_builtin_reward_can_score_a_task() -> None:
    config = load_with({"counts": {**TASK, "reward": "jaccard"}})
    assert score_batch([response("7")], [Example("1", "counts", (), "", "7")], config.reward)[0].accuracy == 1.0
    with pytest.raises(ConfigError, match=r"reward\.forms\.counts: 'fbeta' does not score vqa"):
        load_with({"counts": TASK}, "reward.forms.counts=fbeta")


def test_reward_function_is_checked_before_a_run() -> None:
    config = load_with({"counts": {**TASK, "reward": "rewards.py:count"}})
    with pytest.raises(ConfigError, match=r"'rewards\.py:count': .*expected a function 'count'.*found count_error"):
        check_function(config.reward)


def test_unknown_task_is_an_error_that_names_record_and_tasks(folder: Path) -> None:
    dataset = write_dataset(folder / "data", [Example("r1", "ship_counting", ("a.png",), "how many ?", "3")])
    with pytest.raises(DataError, match=r"record 'r1': task: expected one of scene_cl.*, found 'ship_counting'"):
        next(open_datasets(dataset)[0].rows())
    with pytest.raises(DataError, match=r"task: expected one of .*, found 'ship_counting'"):
        target_from_json("ship_counting", "3")
    assert main(["data", "validate", "data", "--images", "optional", "--max-bad", "1"]) == 0
    assert ["ship_counting" in entry.reason for entry in read_quarantine(dataset, "validate")] == [True]


def test_task_without_scenes_needs_records() -> None:
    config = load_config("recipe.yaml", ["data.source=scenes"])
    with pytest.raises(DataError, match=r"data\.source=scenes: expected a task of .*found 'object_counting'"):
        open_stream(config.data)


PLUGIN = """
import helper
from geovlm_ray.data.formats import FORMATS
from geovlm_ray.learner.objectives import OBJECTIVES
from geovlm_ray.rewards.registry import REWARDS
from geovlm_ray.tasks import TASKS, Task

TASKS["ship_counting"] = Task("ship_counting", "vqa", "Answer with a number.", "exact", "exact")
FORMATS["mine"] = FORMATS["samples"]
OBJECTIVES["mine"] = OBJECTIVES["grpo"]
REWARDS["exact"] = REWARDS["jaccard"]
helper.IMPORTED.append(__name__)
"""


@pytest.fixture
def plugin(folder: Path) -> Path:
    """A plugin file and the module that it imports, in a folder that is not on the path."""
    (folder / "plugins").mkdir()
    (folder / "plugins" / "mine.py").write_text(PLUGIN)
    (folder / "plugins" / "helper.py").write_text("IMPORTED = []")
    sys.modules.pop("helper", None)
    return folder / "plugins" / "mine.py"


def test_plugin_is_imported_once_before_names_are_checked(plugin: Path) -> None:
    names = ["learner.objective=mine", "reward.forms.vqa=exact", "data.stages=[{tasks: [ship_counting], steps: 1}]"]
    with pytest.raises(ConfigError, match="found 'ship_counting'"):
        load_config("demo", names)
    for _ in range(2):
        config = load_config("demo", ["plugins=[plugins/mine.py]", *names])
    assert config.plugins == ("plugins/mine.py",)
    assert len(sys.modules["helper"].IMPORTED) == 1
    assert score_batch([response("7")], [Example("1", "ship_counting", (), "", "7")], config.reward)[0].total == 2.0


def test_data_commands_use_the_formats_of_plugins(folder: Path, plugin: Path) -> None:
    load_config("recipe.yaml")
    Path("plugins.yaml").write_text("plugins: [plugins/mine.py]")
    records = write_records(folder / "source")
    assert main(["data", "convert", "mine", str(records), "counts", "--recipe", "plugins.yaml"]) == 0
    assert sum(1 for _ in open_datasets(Path("counts"))[0].rows()) == 4


def test_module_can_be_a_plugin(plugin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(plugin.parent))
    assert load_config("demo", ["plugins=[mine]", "learner.objective=mine"]).learner.objective == "mine"


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("nowhere.py", None, r"plugins: expected a Python file, found none at .*nowhere\.py"),
        ("no_module_of_this_name", None, r"'no_module_of_this_name' cannot be imported: ModuleNotFoundError"),
        ("broken.py", "def f(:", r"broken\.py' cannot be imported: SyntaxError"),
        ("broken.py", "1 / 0", r"broken\.py' cannot be imported: ZeroDivisionError: division by zero"),
    ],
)
def test_plugin_that_cannot_be_imported_is_a_config_error(name: str, code: str | None, message: str) -> None:
    if code:
        Path(name).write_text(code)
    with pytest.raises(ConfigError, match=message):
        load_config("demo", [f"plugins=[{name}]"])


def test_worker_processes_have_plugins_and_tasks(plugin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_config("recipe.yaml", ["plugins=[plugins/mine.py]"])
    monkeypatch.setattr(parallel, "SERIAL_S", 0.0)
    names = ["object_counting", "ship_counting", "vqa"]
    monkeypatch.chdir("/")
    with Workers(2) as pool:
        assert [task.name for task in pool.in_order(find_task, names)] == names
        assert os.getpid() not in set(pool.in_order(eval, ["__import__('os').getpid()"]))


def test_activation_can_be_repeated_and_extended() -> None:
    first = Extensions.model_validate({"tasks": {"counts": TASK}})
    activate(first)
    activate(first)
    activate(Extensions.model_validate({"tasks": {"sizes": TASK}}))
    assert list(TASKS)[-2:] == ["counts", "sizes"]
    assert extensions.active().tasks.keys() >= {"counts", "sizes"}
    assert reward_config().form("counts") == "rewards.py:count_error"
