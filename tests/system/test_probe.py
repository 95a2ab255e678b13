"""Reward probes: rewards of degenerate answers, compared with an honest baseline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from geovlm_ray.cli import main
from geovlm_ray.core.errors import DataError
from geovlm_ray.core.geometry import Frame
from geovlm_ray.core.schema import Box, Example
from geovlm_ray.data.answers import format_boxes
from geovlm_ray.evaluation.probes.answers import Item, vocabulary
from geovlm_ray.evaluation.probes.honest import honest, paraphrase
from geovlm_ray.evaluation.probes.references import file_references, scene_references
from geovlm_ray.evaluation.probes.strategies import PROBES
from geovlm_ray.evaluation.probes.suite import Cell, ProbeResult, run_probes
from geovlm_ray.evaluation.probes.swap import swapped
from geovlm_ray.evaluation.probes.table import as_text, verdict
from geovlm_ray.rewards import RewardConfig
from geovlm_ray.rewards.facts import fact_agreement
from geovlm_ray.tasks import TASKS
from geovlm_ray.tasks.answers.box_dialects import parse_boxes
from tests.rs import RS, needs_rs
from tests.unit.reward_examples import SAMPLES, boxes, embedder, example

ANSWERS = {probe.name: probe.answer for probe in PROBES}
GAMED_ON_SYNTHETIC = {
    "recall": {"all classes"},
    "jaccard": {"repetition"},
    "detection_best_iou": {"box grid", "dup boxes"},
    "referred_detection_best_iou": {"box grid", "dup boxes"},
    "sbert": {"repetition", "fact swap"},
    "levenshtein": {"fact swap"},
    "hslr": {"word list", "fact swap"},
    "grounded_description": {"box grid", "dup boxes", "fact swap"},
}


def item(task: str, index: int = 0, **fields: Any) -> Item:
    record = example(task, SAMPLES[task][0], **fields)
    return Item(record, index, [record])


def references_without_embedder() -> list[Example]:
    """A few synthetic references of every task whose default reward needs no embedder."""
    skipped = ("region_captioning", "change_captioning")
    return [e for e in scene_references() if e.task not in skipped and int(e.id.rsplit("-", 1)[1]) < 5]


def test_synthetic_references_are_deterministic_and_cover_every_task() -> None:
    assert scene_references() == scene_references()
    assert {e.task for e in scene_references()} == set(TASKS)


def test_default_rewards_are_not_gamed() -> None:
    rows = run_probes(references_without_embedder(), RewardConfig(), None)
    assert {row.reward for row in rows} >= {"fbeta", "exact_match", "equivalence", "detection", "content_words"}
    assert not any(row.gamed_by for row in rows)
    assert all(row.honest > 0.5 for row in rows)


@pytest.mark.parametrize("dialect", ["brackets", "geochat", "json"])
def test_boxes_without_their_labels_do_not_pay(dialect: str) -> None:
    names = ("ship", "plane")
    rows = [[Box(((10.0 * k), 10, 10.0 * k + 30, 50), names[(k + i) % 2]) for i in range(2)] for k in range(6)]
    truths = [(first, Box((20, 60, 60, 90), second.label)) for first, second in rows]
    references = [example("object_detection", truth, labels=names, dialect=dialect) for truth in truths]
    (row,) = run_probes(references, RewardConfig(), None)
    assert not row.gamed_by
    for strategy in ("no label", "generic label"):
        assert 0.45 < row.cells[strategy].value / row.honest < 0.55
    assert row.cells["best constant box"].value < 0.4 * row.honest


def test_constant_answers_are_chosen_on_other_records() -> None:
    assert ANSWERS["best constant box"](item("object_detection")) == "[[25, 25, 75, 75]]"
    pool = [example("object_detection", boxes((10, 10, 30, 30 + k))) for k in range(4)]
    assert ANSWERS["best constant box"](Item(pool[0], 0, pool)) == "[[10, 10, 30, 32]]"
    pool = [example("scene_classification", (name,)) for name in ("port", "port", "farm", "beach")]
    answers = [ANSWERS["most frequent class"](Item(record, k, pool)) for k, record in enumerate(pool)]
    assert answers == [None, None, "port", "port"]
    pool = [example("vqa", name) for name in ("port", "port", "farm", "beach")]
    assert ANSWERS["hedge"](Item(pool[0], 0, pool)) == "port or farm or beach"


def test_paper_rewards_are_gamed_by_known_strategies() -> None:
    rows = run_probes(references_without_embedder(), RewardConfig(preset="paper"), None)
    gamed = {row.reward: set(row.gamed_by) for row in rows}
    for name in gamed.keys() & GAMED_ON_SYNTHETIC.keys():
        assert gamed[name] >= GAMED_ON_SYNTHETIC[name], name
    assert not gamed["accuracy"]


def test_embedding_rewards_are_not_gamed() -> None:
    references = [e for e in scene_references() if e.task in ("region_captioning", "change_captioning")][::8]
    assert not any(row.gamed_by for row in run_probes(references, RewardConfig(), embedder()))
    gamed = {r.reward: set(r.gamed_by) for r in run_probes(references, RewardConfig(preset="paper"), embedder())}
    assert "fact swap" in gamed["hslr"]
    assert {"repetition", "fact swap"} <= gamed["sbert"]


@pytest.mark.slow
def test_command_on_all_synthetic_references(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", "--probe", "--out", str(tmp_path / "probe.json")]) == 0
    assert "no judged strategy earns at least 60%" in capsys.readouterr().out
    tables = json.loads((tmp_path / "probe.json").read_text())
    assert len(tables["configured"]) == len(tables["paper"]) == 9
    for name, row in tables["paper"].items():
        gamed = {s for s, cell in row["strategies"].items() if cell["gamed"] and cell["judged"]}
        assert gamed >= GAMED_ON_SYNTHETIC.get(name, set()), name


@pytest.mark.slow
@needs_rs
def test_command_on_real_references(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", "--probe", str(RS / "samples.jsonl")]) == 0
    assert main(["score", "--probe", str(RS / "samples.jsonl"), "reward.preset=paper"]) == 1
    assert "recall by all classes" in capsys.readouterr().out


def test_command_exits_with_1_if_a_configured_reward_is_gamed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "refs.jsonl"
    lines = [{"id": n, "task": "scene_classification", "target": [n], "labels": list("abcde")} for n in "abcde"]
    source.write_text("\n".join(map(json.dumps, lines)) + "\n")
    assert main(["score", "--probe", str(source)]) == 0
    assert main(["score", str(source), "--probe", "reward.forms.scene_classification=recall"]) == 1
    assert "gamed (at least 60% of the honest baseline): recall by all classes" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "found none"),
        ("", "expected records"),
        ("{", "line 1"),
        ('{"id": 1, "task": "vqa"}', "'target'"),
        ('{"reference": null, "id": 1, "task": "vqa", "images": ["a"], "prompt": ""}', "with a reference, found none"),
    ],
)
def test_a_file_without_references_is_an_error(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "refs.jsonl"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError, match=message):
        file_references(path)


def test_reward_is_gamed_from_60_percent_of_the_honest_baseline() -> None:
    cells = {
        "all classes": Cell(0.6, 1.0, 5, judged=True),
        "box grid": Cell(0.59, 1.0, 5, judged=True),
        "constant": Cell(1.0, 1.0, 5, judged=False),
        "template": Cell(0.0, 0.0, 1, judged=True),
    }
    row = ProbeResult("recall", 1.0, cells)
    assert row.gamed_by == ["all classes"]
    assert verdict([row]).endswith("recall by all classes")
    assert "0.60!" in as_text([row])
    assert "1.00!" not in as_text([row])


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("two ships on the left", "three ships on the right"),
        ("2 grey ships", "3 black ships"),
        ("nothing has changed", "everything has changed"),
        ("there is no change", "there is a change"),
        ("the stadium is very beautiful", "the house is very beautiful"),
        ("a large building was built", "a small building was demolished"),
        ("many trees are planted", "few trees are cleared"),
        ("a dense forest", "a sparse forest"),
    ],
)
def test_fact_swap_changes_the_meaning(text: str, other: str) -> None:
    assert swapped(text) == other
    assert fact_agreement(other, text) <= 0.2


def test_paraphrase_preserves_the_facts() -> None:
    for record in scene_references():
        if record.task.endswith("captioning"):
            text = str(record.target[0])  # type: ignore[index]
            assert fact_agreement(paraphrase(text), text) >= 0.5


@pytest.mark.parametrize("task", TASKS)
def test_honest_answers_are_deterministic(task: str) -> None:
    assert honest(item(task, 3)) == honest(item(task, 3)) != ""


@pytest.mark.parametrize("dialect", ["brackets", "geochat", "tagged", "json", "polygons"])
def test_formatted_boxes_are_parsed_by_the_same_dialect(dialect: str) -> None:
    rows = [((1.0, 2.0, 30.0, 40.0), "ship"), ((5.0, 6.0, 7.5, 8.0, 90.0), None)]
    found = parse_boxes(format_boxes(rows, dialect), dialect, ("ship",))
    assert found is not None
    assert found.boxes == tuple(row for row, _ in rows)
    if dialect in ("brackets", "json", "tagged"):
        assert found.labels[0] == "ship"
    assert parse_boxes(format_boxes([], dialect), dialect) is not None


def test_box_grid_spans_the_frame_within_the_length_limit() -> None:
    frame = Frame("pixel", 1000, 500)
    record = Item(example("object_detection", boxes((1, 2, 3, 4)), frame=frame), 0, [])
    answer = ANSWERS["box grid"](record)
    assert answer is not None
    assert len(answer) < RewardConfig().max_chars
    found = parse_boxes(answer)
    assert found is not None
    assert (min(b[0] for b in found.boxes), max(b[2] for b in found.boxes)) == (0, 1000)
    assert max(b[3] for b in found.boxes) == 500


def test_strategies_apply_only_to_suitable_tasks() -> None:
    assert ANSWERS["all classes"](item("scene_classification", labels=tuple("abcd"))) is None
    assert ANSWERS["all classes"](item("scene_classification", labels=tuple("abcde"))) == "a, b, c, d, e"
    assert ANSWERS["fact swap"](item("vqa")) is None
    assert ANSWERS["constant"](item("vqa")) == "yes"
    assert ANSWERS["prompt"](item("vqa")) is None
    assert len(vocabulary(item("multilabel_classification"))) == 43
