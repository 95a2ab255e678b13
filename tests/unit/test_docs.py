"""README and docs/: every command, setting, link, quoted message and code block is valid."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from actors.heartbeat_metrics import DESCRIPTIONS
from actors.metrics import PREFIX, gauge_name
from geovlm_ray.cli import COMMANDS
from geovlm_ray.config import Config
from geovlm_ray.evaluation.metrics.paper import paper_metrics
from geovlm_ray.evaluation.metrics.sound import AnsweredExample, needs_embedder, sound_metrics
from geovlm_ray.tasks import TASKS
from geovlm_ray.tasks.answers.box_dialects import DIALECTS, parse_boxes
from tests.docs import PAGES, README, Block, blocks, commands, messages, parse, prose, readme_commands
from tests.unit.reward_examples import SAMPLES, embedder, example

TEXTS = {file.name: file.read_text() for file in PAGES}
BLOCKS = [block for page in PAGES for block in blocks(page) if block.language in ("sh", "python")]
MAX_BLOCK_LINES = 40
FILES = (".json", ".jsonl", ".html", ".yaml", ".py", ".pt", ".md", ".txt", ".safetensors")
GROUP_SUFFIX = re.compile(r" (small|medium|large|single|multiple)$")
_CODE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\[[^\]]*\]\((?!https?:|\.\./\.\./(?:issues|actions))([^)#]*)(?:#([^)]*))?\)")
"""Links to files; those to the issues and workflows of a forge are left out."""
_SETTING = re.compile(rf"(?<![\w./-])(?:{'|'.join(Config.model_fields)})\.[a-zA-Z_][\w.]*(?=[=\s,]|$)")


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_block_runs_or_states_why_not(block: Block) -> None:
    assert block.runs or block.info.split(" ")[1] in ("needs", "takes", "in")
    if block.language == "python":
        compile(block.text, str(block), "exec")
    for words in commands(block.text) if block.language == "sh" else ():
        parse(words)


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.file], ids=str)
def test_code_block_is_part_of_its_file(block: Block) -> None:
    assert block.file is not None
    assert block.text in block.file.read_text()
    assert block.text.count("\n") < MAX_BLOCK_LINES


@pytest.mark.parametrize("words", readme_commands(), ids=" ".join)
def test_readme_commands_parse(words: list[str]) -> None:
    parse(words)


@pytest.mark.parametrize("file", [*PAGES, README], ids=lambda f: f.name)
def test_links_resolve(file: Path) -> None:
    for target, title in _LINK.findall(prose(file)):
        page = file.parent / target if target else file
        assert page.exists(), target
        assert not title or title in _anchors(page), f"{target}#{title}"


def _anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}


def test_index_links_every_page() -> None:
    assert set(TEXTS) - {"index.md"} <= {target for target, _ in _LINK.findall(TEXTS["index.md"])}


@pytest.mark.parametrize("file", [*PAGES, README], ids=lambda f: f.name)
def test_commands_and_settings_in_the_text_exist(file: Path) -> None:
    for code in _CODE.findall(prose(file)):
        called = re.match(r"geovlm-ray ([a-z]\w+)", code)
        assert called is None or called[1] in COMMANDS, code
        unknown = [key for key in _SETTING.findall(code) if not key.endswith(FILES) and not _is_setting(key)]
        assert not unknown, code


def _is_setting(key: str) -> bool:
    """Whether a key names a field of the configuration, or an entry of a mapping field, by NAME."""
    model: Any = Config
    for name in key.split("."):
        if model is None:
            return True
        if name == "NAME":
            continue
        if name not in model.model_fields:
            return False
        kind = model.model_fields[name].annotation
        kinds = (kind, *getattr(kind, "__args__", ()))
        model = next((k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)), None)
    return True


@pytest.mark.parametrize("message", re.findall(r"^> (.*)$", TEXTS["troubleshooting.md"], re.M))
def test_quoted_messages_are_in_the_source(message: str) -> None:
    assert any(message in known for known in messages())


def test_task_table_matches_the_code() -> None:
    rows = [line.strip("| ").split(" | ") for line in TEXTS["tasks.md"].splitlines() if line.startswith("| `")]
    found = [tuple(cell.strip("`") for cell in row[:4]) for row in rows if row[0].strip("`") in TASKS]
    assert found == [(t.name, t.target_kind, t.default_reward, t.reward) for t in TASKS.values()]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_examples_in_the_dialect_table_parse(dialect: str) -> None:
    (forms,) = re.findall(rf"^\| `{dialect}`[^|]* \| (.*) \|$", TEXTS["tasks.md"], re.M)
    boxes = [parse_boxes(form.replace(r"\|", "|"), dialect) for form in _CODE.findall(forms)]
    assert boxes
    assert all(found and found.count == len(found.boxes) == 1 for found in boxes)


@pytest.mark.parametrize("task", TASKS)
def test_task_section_matches_the_code(task: str) -> None:
    section = _section(task)
    assert section["Prompt ends with"].startswith(f"`{TASKS[task].instruction}`")
    forms = _CODE.findall(section["Reward"])
    assert forms[0] == TASKS[task].default_reward
    assert TASKS[task].reward in forms
    target, answer = SAMPLES[task]
    records = [AnsweredExample(answer, example(task, target))]
    paper, sound = (_documented_metrics(task, half) for half in (0, 1))
    assert {GROUP_SUFFIX.sub("", name) for name in paper_metrics(records)} <= paper
    found = sound_metrics(records, embedder() if needs_embedder(task) else None)
    assert {GROUP_SUFFIX.sub("", name) for name in found} == sound


def _section(task: str) -> dict[str, str]:
    """List items of a task's section by name."""
    (section,) = re.findall(rf"^## {task}\n(.*?)^```", TEXTS["tasks.md"], re.M | re.S)
    items = re.findall(r"^- ([\w ]+): (.*?)(?=^- |\n\n)", section, re.M | re.S)
    return {name: " ".join(text.split()) for name, text in items}


def _documented_metrics(task: str, half: int) -> set[str]:
    """Metrics of the set ``paper`` (0) or ``sound`` (1) named in a task's section, or in the sections it refers to."""
    names = set(_CODE.findall(_section(task)["Metrics"].split("`sound`:")[half])) - {"paper"}
    others = names & set(TASKS)
    return (names - others).union(*(_documented_metrics(other, half) for other in others))


def test_prometheus_gauges_match_the_code() -> None:
    text = TEXTS["metrics.md"]
    actors = set(re.findall(rf"^\| `ray_({PREFIX}_actor_\w+)`", text, re.M))
    assert actors == {f"{PREFIX}_actor_{name}" for name in DESCRIPTIONS}
    shown = re.findall(r"`([\w/]+)`\s+is\s+`ray_(\w+)`", text)
    assert len(shown) == 3
    assert all(gauge_name(key)[0] == gauge for key, gauge in shown)
