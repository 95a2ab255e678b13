"""`geovlm-ray chat`: one or several questions, an image with the predicted boxes, escaped terminal output."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from PIL import Image, ImageColor

from geovlm_ray.cli import main
from geovlm_ray.commands.chat import print_answer
from geovlm_ray.core.geometry import Frame
from geovlm_ray.core.schema import Box
from geovlm_ray.data.scenes import render_scene, scene_example
from geovlm_ray.report.boxes import PREDICTED_COLOUR
from geovlm_ray.report.terminal import InertConsole
from geovlm_ray.serving.answering import Answer


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Working directory with one image."""
    monkeypatch.chdir(tmp_path)
    render_scene(scene_example("object_detection", 1_000_000_007, 0).images[0]).save("scene.png")


def test_question_is_answered_and_boxes_are_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chat", "tiny", "scene.png", "--question", "find all ships .", "--out", "boxes.png"]) == 0
    output = capsys.readouterr().out
    for part in ("Reasoning: ", "Answer: [[", "Box: [", "] percent", "boxes.png"):
        assert part in output
    box = [float(c) for c in output.split("Box: [")[1].split("]")[0].split(",")]
    shown = Image.open("boxes.png").convert("RGB")
    left_edge = round(box[0] / 100 * shown.width), round((box[1] + box[3]) / 200 * shown.height)
    assert shown.getpixel(left_edge) == ImageColor.getrgb(PREDICTED_COLOUR)


def test_chat_continues_after_an_invalid_question_until_an_empty_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("find all ships .\n<|image_pad|> ?\nrural or urban ?\n\nunasked\n"))
    assert main(["chat", "tiny", "scene.png", "rollout.max_tokens=48"]) == 0
    output = capsys.readouterr().out
    assert len(re.findall(r"(?:Answer|Not in the trained response format): ", output)) == 2
    assert "the question must not contain any" in output
    assert Path("answer.png").is_file()
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert main(["chat", "tiny", "scene.png"]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["scene.png", "absent.png"], "absent.png: expected a file, found none"),
        (["scene.png", "--out", "answer.jpg"], "--out: expected a .png file"),
        (["scene.png", "--out", "nowhere/answer.png"], "--out nowhere/answer.png: expected an existing folder"),
        (["scene.png", "data.frame=dataset"], "data.frame: expected the frame"),
        (["scene.png", "prompt.image_size=9000"], "prompt.image_size"),
        (["scene.png", "--task", "counting"], "--task: expected one of scene_classification"),
        (["scene.png", "--question", " "], "expected a question, found none"),
        (["scene.png"] * 9, "expected 1 to 8 images, found 9"),
    ],
)
def test_wrong_input_is_a_one_line_error(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("what is it ?\n"))
    question = [] if "--question" in arguments else ["--question", "what is it ?"]
    assert main(["chat", "tiny", *arguments, *question]) == 1
    error = capsys.readouterr().err.strip()
    assert message in error
    assert len(error.splitlines()) == 1


def test_terminal_output_has_no_control_characters() -> None:
    sink = io.StringIO()
    answer = Answer("", "\x1b[2J\x9b31m", "[bold]x[/bold]\x07", (Box((1, 2, 3, 4), "\x1b]0;owned\x07"),), Frame(), 0.1)
    print_answer(answer, InertConsole(file=sink, width=200))
    output = sink.getvalue()
    assert "Answer: [bold]x[/bold]" in output
    assert not set(output) & set("\x1b\x9b\x07")
