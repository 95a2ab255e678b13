"""Held-out examples and warnings in a report, from the files of a run directory alone."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from geovlm_ray.config import Config, to_yaml
from geovlm_ray.core.errors import DataError
from geovlm_ray.core.schema import Prompt, Sample, SampleGroup
from geovlm_ray.data.sampler import SceneStream
from geovlm_ray.data.scenes import demonstration
from geovlm_ray.evaluation.constant_answers import best_constant_answers, majority_classes
from geovlm_ray.evaluation.validation import Completion, held_out_summary, validation_completions, write_completions
from geovlm_ray.report.held_out_cases import Pair, first_of_each_task, read_pairs, shown_case, worst
from geovlm_ray.report.html import write_report
from geovlm_ray.report.run_warnings import read_warnings
from geovlm_ray.rewards.local import LocalRewards

TASKS = ("vqa", "object_detection", "visual_grounding", "multilabel_classification")
EXAMPLES = SceneStream(0).held_out(TASKS, 16)


class Policy:
    """Engines with the reference answer to examples whose number is at least ``ignorance``, else a wrong one."""

    def __init__(self, ignorance: int) -> None:
        self.ignorance = ignorance

    def generate(self, prompts: Sequence[Prompt], **sampling: Any) -> list[SampleGroup]:
        def text(prompt: Prompt) -> str:
            knows = int(prompt.example.id.rpartition("-")[2]) >= self.ignorance
            return demonstration(prompt.example) if knows else "<think></think><answer>[[1, 2, 30, 40]]</answer>"

        return [SampleGroup(p, (Sample((1,), (-0.1,), text(p), "stop", 0),)) for p in prompts]


def completions(config: Config, ignorance: int) -> list[Completion]:
    prompts = [Prompt(k, example) for k, example in enumerate(EXAMPLES)]
    engines, rewards = Policy(ignorance), LocalRewards(config.reward)
    return validation_completions(engines, rewards, prompts, SceneStream(0).set_aside)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, demo: Config) -> Path:
    """A run directory of a policy that learned the second and third example of each task."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "config.yaml").write_text(to_yaml(demo))
    before, after = completions(demo, 3), completions(demo, 1)
    write_completions(before, folder / "heldout_before.jsonl")
    write_completions(after, folder / "heldout_after.jsonl")
    rewards, stream = LocalRewards(demo.reward), SceneStream(0)
    constants = best_constant_answers(rewards, stream, EXAMPLES, rewards.config)
    majorities = majority_classes(rewards, stream, EXAMPLES, rewards.config)
    heldout = held_out_summary(before, after, constants, majorities=majorities)
    (folder / "summary.json").write_text(
        json.dumps({"steps": 3, "seconds": 4.0, "parity_max_abs": 1e-6, "heldout": heldout})
    )
    return folder


def test_report_begins_with_conclusions_and_ends_with_bookkeeping(finished: Path) -> None:
    page = write_report(finished).read_text()
    assert "the greedy reward (at most 2) rose from" in page.partition("<h2>")[0]
    assert re.findall("<h2>([^<]*)", page) == [
        *("Held-out examples before and after training", "Worst cases", "Run", "Held-out rewards", "Configuration"),
        "Sampled completions",
    ]


def test_the_first_examples_of_each_task_are_shown_before_and_after(finished: Path) -> None:
    chosen = first_of_each_task(read_pairs(finished)[0])
    assert [pair.after["id"] for pair in chosen] == [EXAMPLES[k].id for k in (0, 1, 4, 5, 8, 12)]
    cases = [shown_case(pair, "required") for pair in chosen]
    vqa = cases[1]
    assert (vqa.task, vqa.question, vqa.reference) == ("vqa", EXAMPLES[1].question, EXAMPLES[1].target)
    assert [(each.when, each.answer, each.reward) for each in vqa.responses] == [
        ("before", "[[1, 2, 30, 40]]", 1.0),
        ("after", EXAMPLES[1].target, 2.0),
    ]
    assert [len(case.pictures) for case in cases] == [1, 1, 2, 2, 2, 1], "boxes: before and after"
    assert [picture.caption for picture in cases[2].pictures] == ["before training", "after training"]
    assert cases[2].pictures[0].alt.startswith(f"before training: {EXAMPLES[4].question} true boxes (blue, solid): ")
    assert cases[3].pictures[0].uri != cases[3].pictures[1].uri, "the predicted boxes differ"


def test_several_true_boxes_have_letters_in_the_reference(finished: Path) -> None:
    cases = [
        shown_case(pair, "required") for pair in read_pairs(finished)[0] if pair.after["task"] == "object_detection"
    ]
    several = [case.reference for case in cases if case.reference.count("[") > 1]
    assert several
    assert all(re.fullmatch(r"A \[[^]]*\](, [B-Z] \[[^]]*\])+", text) for text in several)


def test_worst_cases_are_the_lowest_rewards_of_at_most_two_per_task() -> None:
    def pair(task: str, name: str, reward: float) -> Pair:
        return Pair({}, {"task": task, "id": name, "reward": reward})

    pairs = [
        *(pair("vqa", name, reward) for name, reward in (("a", 1.0), ("b", 0.0), ("c", 0.5), ("d", 0.4))),
        *(pair("object_detection", name, reward) for name, reward in (("e", 2.0), ("f", 1.2), ("g", 2.0))),
        *(pair("visual_grounding", name, 1.2) for name in "hij"),
    ]
    assert [each.after["id"] for each in worst(pairs, 2.0)] == ["b", "d", "f", "h", "i"]
    assert [each.after["id"] for each in worst(pairs, 2.0, n=3)] == ["b", "d", "f"]


def test_worst_cases_are_shown(finished: Path) -> None:
    page = write_report(finished).read_text()
    section = page.partition("<h2>Worst cases</h2>")[2].partition("<h2>Run</h2>")[0]
    assert all(EXAMPLES[k].id in section for k in (0, 4, 8, 12))
    assert EXAMPLES[1].id not in section, "it earns the maximum"


def test_a_response_of_wrong_format_is_shown_whole(finished: Path) -> None:
    (first, *_), _ = read_pairs(finished)
    case = shown_case(Pair(first.before, {**first.after, "response": "<think>no <b>"}), "required")
    assert case.responses[1].answer is None
    assert case.responses[1].response == "<think>no <b>"


def test_files_of_earlier_versions_give_cases_without_pictures(finished: Path, tmp_path: Path) -> None:
    keys = ("mode", "task", "id", "response", "reward")
    for name in ("heldout_before.jsonl", "heldout_after.jsonl"):
        rows = [json.loads(line) for line in (finished / name).read_text().splitlines()]
        write_completions([{key: row[key] for key in keys} for row in rows], tmp_path / name)
    for name in ("config.yaml", "summary.json"):
        (tmp_path / name).write_text((finished / name).read_text())
    page = write_report(tmp_path).read_text()
    assert "<img" not in page
    assert page.count("No image: the run was written by an earlier version") == 6 + 4
    (earlier, _), (current, _) = read_pairs(tmp_path), read_pairs(finished)
    mixed = [Pair(old.before, new.after) for old, new in zip(earlier, current, strict=True)]
    assert len(shown_case(mixed[4], "required").pictures) == 2, "a run that was resumed by this version"


def test_runs_before_their_second_evaluation_show_no_examples(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "heldout_before.jsonl").write_text((finished / "heldout_before.jsonl").read_text())
    assert read_pairs(tmp_path) == ([], "")


def test_invalid_file_of_completions_is_a_one_line_error(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "heldout_before.jsonl").write_text((finished / "heldout_before.jsonl").read_text())
    (tmp_path / "heldout_after.jsonl").write_text('{"mode": "greedy", "task": "vqa", "id": "0", "reward": 1}\n')
    with pytest.raises(DataError, match=r"heldout_after\.jsonl, line 1: expected the key 'response', found"):
        read_pairs(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (None, None, r"has vqa \S+ where heldout_after\.jsonl has nothing"),
        ('"id": "', '"id": "x', r"has vqa (\S+) where heldout_after\.jsonl has vqa x\1$"),
        ('"target": "', '"target": "9', r"has vqa (\S+) where heldout_after\.jsonl has vqa \1 with another target$"),
    ],
)
def test_examples_that_differ_are_not_paired(
    old: str | None, new: str, reason: str, finished: Path, tmp_path: Path
) -> None:
    answers = (finished / "heldout_before.jsonl").read_text()
    (tmp_path / "heldout_before.jsonl").write_text(answers)
    (tmp_path / "heldout_after.jsonl").write_text(answers.replace(old, new) if old else "")
    pairs, found = read_pairs(tmp_path)
    assert not pairs
    assert re.match(rf"heldout_before\.jsonl {reason}", found)


# --- warnings


def write_warnings(folder: Path, *rows: dict[str, Any]) -> None:
    (folder / "warnings.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def test_each_warning_is_shown_once_with_its_steps_and_latest_message(tmp_path: Path, demo: Config) -> None:
    assert read_warnings(tmp_path) == []
    write_warnings(
        tmp_path,
        {"step": 0, "kind": "settings", "message": "learner.lr is <high>"},
        {"step": 40, "kind": "dominant_answer", "message": "vqa: 60% of 1,000 answers are 'yes'"},
        {"step": 90, "kind": "dominant_answer", "message": "vqa: 85.5% of 2,000 answers are 'yes'"},
        {"step": 91, "kind": "dominant_answer", "message": "vqa: 60% of 1,000 answers are 'no'"},
    )
    assert [(warning.title, warning.steps, warning.message) for warning in read_warnings(tmp_path)] == [
        ("settings", "before training", "learner.lr is <high>"),
        ("dominant answer", "steps 40 to 90, 2 times", "vqa: 85.5% of 2,000 answers are 'yes'"),
        ("dominant answer", "step 91", "vqa: 60% of 1,000 answers are 'no'"),
    ]
    (tmp_path / "config.yaml").write_text(to_yaml(demo))
    page = write_report(tmp_path).read_text()
    assert "The run gave 3 warnings, listed below." in page
    assert "learner.lr is &lt;high&gt;" in page


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"step": 1, "kind": "settings"}, "message: expected str, found 'no such key'"),
        ({"step": "1", "kind": "settings", "message": "m"}, "step: expected int, found '1'"),
    ],
)
def test_invalid_warning_is_a_one_line_error(row: dict[str, Any], message: str, tmp_path: Path) -> None:
    write_warnings(tmp_path, {"step": 1, "kind": "settings", "message": "m"}, row)
    with pytest.raises(DataError, match=rf"warnings.jsonl, line 2: {message}"):
        read_warnings(tmp_path)
