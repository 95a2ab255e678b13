"""Pages from templates: escaping, trusted markup, self-containedness, and held-out rewards in every rendering."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jinja2 import UndefinedError
from markupsafe import Markup

import geovlm_ray.report
from geovlm_ray.commands.train import print_summary
from geovlm_ray.core.errors import DataError
from geovlm_ray.evaluation.constant_answers import ConstantAnswer
from geovlm_ray.evaluation.validation import held_out_summary
from geovlm_ray.report.held_out import ANSWER_COLUMNS, COLUMNS, held_out_results, task_answers
from geovlm_ray.report.html import write_report
from geovlm_ray.report.page import escape_markdown, render
from geovlm_ray.report.terminal import InertConsole
from tests.system.test_run_records import run as run  # noqa: PLC0414

TEMPLATES = Path(geovlm_ray.report.__file__).parent / "templates"
HOSTILE = "<script>alert('x')</script>"


def test_text_is_escaped_and_markup_is_not() -> None:
    page = render("sft.html", name=HOSTILE, charts=[Markup("<svg></svg>"), HOSTILE], changes=[HOSTILE])
    assert page.count("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;") == 4, "title, heading, chart and change"
    assert "<svg></svg>" in page
    assert "<script>" not in page


def test_missing_value_of_a_template_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="'charts' is undefined"):
        render("sft.html", name="run")


@pytest.mark.parametrize("template", sorted(file.name for file in TEMPLATES.glob("*.html")))
def test_templates_load_nothing_from_the_network(template: str) -> None:
    text = (TEMPLATES / template).read_text()
    assert not any(link in text for link in ("http:", "https:", "@import", 'src="//'))
    assert template in ("page.html", "macros.html") or text.startswith('{% extends "page.html" %}')


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a | b", "a \\| b"),
        ("[x](y)\n# z", "\\[x\\](y) # z"),
        ("`code` \\ <b>", "'code' \\\\ &lt;b&gt;"),
        (3, "3"),
    ],
)
def test_plain_text_has_no_effect_in_markdown(text: object, expected: str) -> None:
    assert escape_markdown(text) == expected


# --- held-out rewards


def summary(answer: str = "yes") -> dict[str, Any]:
    """The summary of a run with three held-out examples of two tasks."""
    rows = {
        when: [
            {"mode": mode, "task": task, "id": str(k), "response": f"<think></think><answer>{answer}</answer>"}
            | {"reward": reward + (when == "after") * (mode == "greedy")}
            for mode in ("sampled", "greedy")
            for task, rewards in (("vqa", (0.0, 1.0)), ("object_detection", (0.5,)))
            for k, reward in enumerate(rewards)
        ]
        for when in ("before", "after")
    }
    constants = {"vqa": ConstantAnswer(answer, [1.0, 0.0]), "object_detection": ConstantAnswer("[]", [0.25])}
    heldout = held_out_summary(
        rows["before"], rows["after"], constants, majorities={"vqa": ConstantAnswer("no", [0.0, 0.5])}
    )
    return {"steps": 3, "seconds": 4.0, "parity_max_abs": 1e-6, "heldout": heldout}


def test_rows_are_all_tasks_then_each_task_by_decoding() -> None:
    rows = held_out_results(summary())
    assert [(row.task, row.decoding, row.after.n) for row in rows] == [
        *(("all", "sampled", 3), ("all", "greedy", 3), ("vqa", "sampled", 2), ("vqa", "greedy", 2)),
        *(("object_detection", "sampled", 1), ("object_detection", "greedy", 1)),
    ]
    greedy = rows[1]
    assert (greedy.constant, greedy.before.mean, greedy.after.mean) == pytest.approx((1.25 / 3, 0.5, 1.5))
    assert (greedy.change.mean, greedy.change.se) == (1, 0)
    assert greedy.before.se == pytest.approx(np.std([0, 1, 0.5], ddof=1) / np.sqrt(3))
    assert dict(zip(COLUMNS, greedy.cells, strict=True)) == {
        **{"task": "all", "decoding": "greedy", "examples": "3", "best constant": "0.417", "majority class": "–"},
        **{"before": "0.500 ± 0.289", "after": "1.500 ± 0.289", "change [95% interval]": "+1.000 [+1.000, +1.000]"},
    }
    assert [row.majority for row in rows] == [None, None, 0.25, 0.25, None, None]
    assert rows[-1].cells[-1] == "+1.000 –", "one example has no interval"
    assert dict(zip(ANSWER_COLUMNS, task_answers(summary())[0].cells, strict=True)) == {
        **{"task": "vqa", "best constant answer": "yes", "majority class": "no"},
        **{"most common greedy answer after training": "yes", "share": "100.0%"},
    }


def test_runs_without_held_out_examples_and_old_summaries_have_no_rows() -> None:
    old = summary()
    del old["heldout"]["constant"]
    for values in ({}, {"heldout": None}, old):
        assert (held_out_results(values), task_answers(values)) == ([], [])


def test_summaries_without_majority_classes_and_intervals_are_read() -> None:
    old = summary()
    del old["heldout"]["majority"]
    for modes in (old["heldout"], *old["heldout"]["per_task"].values()):
        for mode in ("sampled", "greedy"):
            del modes[mode]["change"]["interval"]
    for common in old["heldout"]["most_common"].values():
        del common["share_before"], common["reference_share"]
    assert [row.majority_text for row in held_out_results(old)] == ["–"] * 6
    assert [row.change for row in held_out_results(old)] == [row.change for row in held_out_results(summary())]
    assert not any(each.dominates for each in task_answers(old))


@pytest.mark.parametrize("broken", [{"per_task": {"vqa": {"sampled": {}}}}, {"per_task": 3}, {"constant": {}}])
def test_invalid_summary_is_a_one_line_error(broken: dict[str, Any]) -> None:
    values = summary()
    values["heldout"] |= broken
    with pytest.raises(DataError, match=r"summary\.json: heldout: expected rewards before and after training, found"):
        held_out_results(values)


def test_terminal_and_report_show_the_same_rewards(run: Path) -> None:
    values = summary(f"[bold] {HOSTILE}\x1b[31m " + "x" * 100)
    console = InertConsole(record=True, width=140, file=open("/dev/null", "w"))  # noqa: SIM115
    print_summary(values, 2, console)
    output = console.export_text()
    assert "3 steps in 4 s" in output
    assert "Held-out reward (max 2) of 3 examples, greedy, paired change" in output
    assert [line.split() for line in output.splitlines() if line.startswith("all ")][1] == [
        *("all", "0.500", "1.500", "+1.000", "[+1.000,", "+1.000]", "0.417", "–")
    ]
    assert f"[bold] {HOSTILE}\\x1b[31m..." in output, "markup or a control sequence had an effect"
    (run / "summary.json").write_text(json.dumps(values))
    page = write_report(run).read_text()
    assert all(f">{cell}</td>" in page for row in held_out_results(values) for cell in row.cells)
    assert HOSTILE not in page


def test_terminal_tables_fit_80_columns() -> None:
    values = summary()
    values["heldout"]["per_task"]["referred_object_detection"] = values["heldout"]["per_task"].pop("vqa")
    values["heldout"]["constant"]["referred_object_detection"] = values["heldout"]["constant"]["vqa"]
    console = InertConsole(record=True, width=80, file=open("/dev/null", "w"))  # noqa: SIM115
    print_summary(values, 2, console)
    assert "referred_object_detection 0.500  1.500 +1.000 [+1.000, +1.000] 0.500    –" in console.export_text()
