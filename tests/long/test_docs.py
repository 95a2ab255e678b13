"""Pages of docs/: their code blocks run and print the shown output; the tables of metrics are complete."""

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
EXACT_ENTROPY = {"entropy/exact", "task/vqa/entropy_exact"}
"""Only with ``learner.entropy=exact``."""


@pytest.fixture(scope="module")
def page_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Run the blocks of a page once; returns the folder in which they ran."""

    @functools.cache
    def run_page(name: str) -> Path:
        folder = tmp_path_factory.mktemp(name.removesuffix(".md"))
        for block in blocks(TOP / "docs" / name):
            if block.runs:
                check_printed(block, run(block.language, block.text, folder))
        return folder

    return run_page


@pytest.mark.parametrize("name", [page.name for page in PAGES if any(block.runs for block in blocks(page))])
def test_page_commands_run_and_print_the_shown_output(page_folder: Callable[[str], Path], name: str) -> None:
    assert page_folder(name).is_dir()


def documented_names(section: str) -> dict[str, str]:
    """Regular expressions of the metric names in a section of docs/metrics.md, by documented name."""
    (text,) = re.findall(rf"^## {section}\n(.*?)(?=^## |\Z)", METRICS.read_text(), re.M | re.S)
    cells = [row.split(" | ")[0] for row in re.findall(r"^\| (`.*)$", text, re.M)]
    names = [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]
    tasks, benchmarks = "|".join(TASKS), r"drawn-\w+"
    return {name: name.replace("TASK", f"({tasks})").replace("NAME", f"({benchmarks})") for name in names}


def check_names(section: str, logged: set[str]) -> None:
    """Check that the logged names and the documented names of a section match."""
    documented = documented_names(section)
    undocumented = {name for name in logged if not any(re.fullmatch(pattern, name) for pattern in documented.values())}
    assert not undocumented, "logged but not documented"
    assert not {name for name, pattern in documented.items() if not any(re.fullmatch(pattern, w) for w in logged)}


def test_metrics_page_lists_every_metric_of_a_run(page_folder: Callable[[str], Path]) -> None:
    folder = page_folder("evaluation.md") / "runs" / "watched"
    logged = {name for row in metrics(folder) for name in row}
    check_names("Reinforcement learning", logged | EXACT_ENTROPY)
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == logged - {"step"}


def test_metrics_page_lists_every_metric_of_fine_tuning(page_folder: Callable[[str], Path]) -> None:
    lines = (page_folder("own-data.md") / "model" / "sft.jsonl").read_text().splitlines()
    check_names("Supervised fine-tuning", {name for line in lines for name in json.loads(line)})
