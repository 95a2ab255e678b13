"""Predictions over scenes: ask about every window, merge what was found, write the map."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from geovlm_ray.config import Config, check_unchanged, to_yaml
from geovlm_ray.core.contents import FILE as CONTENTS_FILE
from geovlm_ray.core.contents import ContentRecord
from geovlm_ray.core.files import write_atomically
from geovlm_ray.core.interfaces import RolloutPool
from geovlm_ray.core.locks import locked
from geovlm_ray.data.geo.scene import Scene
from geovlm_ray.evaluation.contents import prediction_inputs
from geovlm_ray.evaluation.settings import MAY_CHANGE
from geovlm_ray.model.answer_format import answer_format_of
from geovlm_ray.model.loading import load_processor
from geovlm_ray.serving.predict.answers import Answers, ask_about_windows, windows_left
from geovlm_ray.serving.predict.features import SceneFeatures, write_features
from geovlm_ray.serving.predict.objects import features_of
from geovlm_ray.serving.predict.quick_look import write_quick_look
from geovlm_ray.serving.predict.settings import PredictSettings, check_settings
from geovlm_ray.serving.predict.sources import UNFINISHED, scene_names

FOLDER_AND_REMEDY = ("unfinished answers", "remove the folder to begin again")
"""For error messages: what the folder is, and what the user can do."""


def unfinished_folder(out: Path) -> Path:
    """Folder of the answers of a run that is not finished."""
    return out.with_name(out.name + UNFINISHED)


def predict(
    sources: Sequence[Sequence[str]],
    settings: PredictSettings,
    config: Config,
    build: Callable[[Config], RolloutPool],
    out: Path,
    on_progress: Callable[[int, int], None],
    *,
    reasoning: bool = False,
    accept_changes: bool = False,
    announce: Callable[[str], None] = lambda text: None,
) -> tuple[list[SceneFeatures], list[Path]]:
    """Predict over scenes, or over pairs of scenes, given by their paths; write ``out`` and a quick look.

    ``build`` builds the engines, which load ``config.model.path``; it is not called if all answers are there. Answers
    are kept beside ``out`` until it is written, and a run with the same settings goes on from them; with
    ``accept_changes``, even if weights or sources have changed. ``announce`` is told if much has to be read. Returns
    the features and the files.

    Raises:
        UserError: a source cannot be read, settings or content have changed, or a file cannot be written.
    """
    folder = unfinished_folder(out)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder, "folder of unfinished answers", "choose another --out"):
        check_settings(settings, sources, folder)
        check_unchanged(config, folder / "config.yaml", MAY_CHANGE, *FOLDER_AND_REMEDY)
        contents = ContentRecord(folder / CONTENTS_FILE)
        description, remedy = FOLDER_AND_REMEDY
        contents.update(
            prediction_inputs(config, settings.task, [path for source in sources for path in source]),
            accept=accept_changes,
            step=None,
            description=description,
            remedy=remedy,
            announce=announce,
        )
        contents.write()
        write_atomically(folder / "config.yaml", to_yaml(config))
        with closing(Answers(folder)) as answers:
            if windows_left(sources, settings, answers):
                model = Path(config.model.path)
                answer_format = answer_format_of(config.data, config.prompt, model)
                tokenizer = load_processor(model).tokenizer
                with closing(build(config)) as rollouts:
                    ask_about_windows(
                        sources, settings, answer_format, tokenizer, rollouts, answers, folder, on_progress
                    )
            names = scene_names([paths[0] for paths in sources])
            scenes = [
                replace(_features(k, paths[0], settings, answers, reasoning=reasoning), name=name)
                for k, (paths, name) in enumerate(zip(sources, names, strict=True))
            ]
        write_features(scenes, out)
        files = [out, *write_quick_look(sources, settings.composites, scenes, out)]
    shutil.rmtree(folder)
    return scenes, files


def _features(source: int, path: str, settings: PredictSettings, answers: Answers, *, reasoning: bool) -> SceneFeatures:
    rows = sorted(
        (row for row in answers.rows if row.source == source), key=lambda row: (row.window.top, row.window.left)
    )
    with Scene(path) as scene:
        found = features_of(rows, settings.task, scene.width, scene.height, settings.classes, reasoning=reasoning)
        return SceneFeatures.of(scene, found)
