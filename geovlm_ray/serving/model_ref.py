"""What a user may mean by a model: a run, a checkpoint, an adapter, a folder, or a name."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from geovlm_ray.config import Config, load_config
from geovlm_ray.core.errors import RunError
from geovlm_ray.core.files import read_object
from geovlm_ray.model.config import TINY
from geovlm_ray.model.loading import model_folder
from geovlm_ray.training.checkpoint import NAME, STATE_FILE, _verified

log = logging.getLogger(__name__)

ADAPTER_FILE = "adapter_config.json"
MODEL_FILE = "config.json"
RUN_FILES = ("config.yaml", "sft.yaml")
"""Settings of a training run by `train` and by `sft`."""
SETTINGS_FILE = "geovlm_ray.yaml"
"""Settings that an exported model carries: how its prompts are written and its completions drawn."""
OWN_RECIPE, TINY_RECIPE = "geovlm-r1", "demo"


@dataclass(frozen=True)
class ModelRef:
    """A model that was found.

    ``path`` is the folder of its weights, ``adapter`` whether those are a PEFT adapter. ``run`` is the folder of the
    training run, or of the fine-tuning, that left it, and ``trained`` are the settings of that; None where none is
    known. With ``config`` its prompts are written and its completions drawn.
    """

    path: Path
    adapter: bool
    run: Path | None
    config: Config
    trained: Config | None


def resolve_model(model: str, recipe: str | None = None, overrides: Iterable[str] = ()) -> ModelRef:
    """Find a model.

    Args:
        model: ``tiny``, a Hugging Face name, the folder of a model or of a PEFT adapter, a checkpoint of a run, or a
            run directory, which stands for its newest whole checkpoint.
        recipe: recipe or file of the settings; else those of the run, those that an exported model carries, those of
            ``demo`` for a model with the tiny policy's vocabulary, or those of ``geovlm-r1``.
        overrides: ``section.key=value``, on top of them.

    Raises:
        ModelError: there is no such model.
        RunError: the run has no checkpoint, or none that is whole.
        ConfigError: a setting is wrong.
    """
    folder = Path(model)
    settings = _run_settings(folder)
    run = settings.parent if settings else None
    is_run = run == folder and not _is_model(folder)
    folder = _newest(folder) if is_run else folder
    adapter = (folder / ADAPTER_FILE).is_file()
    path = folder if adapter else model_folder(model if not is_run else str(folder))
    carried = settings or (path / SETTINGS_FILE if (path / SETTINGS_FILE).is_file() else None)
    source = recipe or (str(carried) if carried else TINY_RECIPE if _is_tiny(path, adapter) else OWN_RECIPE)
    trained = load_config(str(settings)) if settings else None
    return ModelRef(path, adapter, run, load_config(source, overrides), trained)


def _run_settings(folder: Path) -> Path | None:
    """The settings of the run that a folder is, or whose model, checkpoint or adapter it is."""
    above = folder.absolute().parents
    places = [folder, *above[: 1 if folder.name == "adapter" else 0]]
    if (folder / STATE_FILE).is_file():
        places += above[1:2]
    files = [place / name for place in places for name in RUN_FILES]
    # A model's own config.yaml is of its makers.
    return next((f for f in files if f.is_file() and not (f.name == RUN_FILES[0] and _is_model(f.parent))), None)


def _newest(run: Path) -> Path:
    """The newest checkpoint of a run that is as it was written; the run may be under way."""
    found = [f for f in (run / "checkpoints").glob("step-*") if NAME.fullmatch(f.name)]
    problem: object = "none"
    for folder in sorted(found, key=lambda f: int(f.name.removeprefix("step-")), reverse=True):
        try:
            _verified(folder)
            return folder
        except RunError as error:
            log.warning("%s", error)
            problem = error
    raise RunError(f"run {run}: expected a whole checkpoint in {run / 'checkpoints'}, found {problem}")


def _is_model(folder: Path) -> bool:
    return (folder / MODEL_FILE).is_file()


def _is_tiny(path: Path, adapter: bool) -> bool:
    """Whether a model has the vocabulary of the tiny policy, for which the prompts of ``geovlm-r1`` are too hard."""
    base = Path(str(read_object(path / ADAPTER_FILE).get("base_model_name_or_path"))) if adapter else path
    return _is_model(base) and _vocabulary(base) == _vocabulary(model_folder(TINY))


def _vocabulary(folder: Path) -> int | None:
    values = read_object(folder / MODEL_FILE)
    return values.get("vocab_size") or values.get("text_config", {}).get("vocab_size")
