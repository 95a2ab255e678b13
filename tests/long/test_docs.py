"""Every page below docs/: its blocks run, print what it shows, and its table of metrics is complete."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from geovlm_ray.tasks import TASKS
from tests.docs import PAGES, TOP, blocks, check_printed, run
from tests.system.runs import metrics

pytestmark = pytest.mark.slow
METRICS = TOP / "docs" / "metrics.md"


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder in which a page was done, once."""

    @functools.cache
    def do(name: str) -> Path:
        folder = tmp_path_factory.mktemp(name.removesuffix(".md"))
        for block in blocks(TOP / "docs" / name):
            if block.runs:
                check_printed(block, run(block.language, block.text, folder))
        return folder

    return do


@pytest.mark.parametrize("name", [page.name for page in PAGES if any(block.runs for block in blocks(page))])
def test_a_page_does_what_it_shows(done: Callable[[str], Path], name: str) -> None:
    assert done(name).is_dir()


def names_of(section: str) -> dict[str, str]:
    """The names in the table of a section of the page on metrics, each as a pattern."""
    (text,) = re.findall(rf"^## {section}\n(.*?)(?=^## |\Z)", METRICS.read_text(), re.M | re.S)
    cells = [row.split(" | ")[0] for row in re.findall(r"^\| (`.*)$", text, re.M)]
    names = [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]
    tasks, others = "|".join(TASKS), r"drawn-\w+"
    return {name: name.replace("TASK", f"({tasks})").replace("NAME", f"({others})") for name in names}


def check_names(section: str, written: set[str]) -> None:
    """Every name that is written stands in a section, and every one there is written."""
    said = names_of(section)
    unknown = {name for name in written if not any(re.fullmatch(pattern, name) for pattern in said.values())}
    assert not unknown, "written and not on the page"
    assert not {name for name, pattern in said.items() if not any(re.fullmatch(pattern, w) for w in written)}


def test_the_page_on_metrics_names_what_a_run_writes(done: Callable[[str], Path]) -> None:
    folder = done("evaluation.md") / "runs" / "watched"
    written = {name for row in metrics(folder) for name in row}
    check_names("Reinforcement learning", written)
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == written - {"step"}


def test_the_page_on_metrics_names_what_fine_tuning_writes(done: Callable[[str], Path]) -> None:
    lines = (done("own-data.md") / "model" / "sft.jsonl").read_text().splitlines()
    check_names("Supervised fine-tuning", {name for line in lines for name in json.loads(line)})
