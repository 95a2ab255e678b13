"""Resolution of a MODEL argument: run directory, checkpoint, PEFT adapter, model folder, or Hugging Face name."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from geovlm_ray.config import Config, import_plugins, load_config, load_stored
from geovlm_ray.core.errors import RunError
from geovlm_ray.core.files import read_object
from geovlm_ray.model.config import TINY
from geovlm_ray.model.loading import model_folder
from geovlm_ray.training.checkpoint import NAME, STATE_FILE, verified_state

log = logging.getLogger(__name__)

ADAPTER_FILE = "adapter_config.json"
MODEL_FILE = "config.json"
RUN_FILES = ("config.yaml", "sft.yaml")
"""Configuration files that `train` and `sft` write."""
SETTINGS_FILE = "geovlm_ray.yaml"
"""Prompt and sampling settings inside an exported model folder."""
DEFAULT_RECIPE, TINY_RECIPE = "geovlm-r1", "demo"


@dataclass(frozen=True)
class ModelRef:
    """A resolved model.

    ``path`` is the folder of the weights; ``adapter`` tells whether they are a PEFT adapter. ``run`` is the output
    folder of the RL or fine-tuning run that produced them and ``trained`` its configuration; both None if unknown.
    ``config`` defines prompts and sampling at inference.
    """

    path: Path
    adapter: bool
    run: Path | None
    config: Config
    trained: Config | None


def resolve_model(model: str, recipe: str | None = None, overrides: Iterable[str] = ()) -> ModelRef:
    """Resolve a model and its inference settings.

    Only ``recipe`` and ``overrides`` import plugins and read environment variables: a folder may come from elsewhere.

    Args:
        model: ``tiny``, a Hugging Face name, a model folder, a PEFT adapter folder, a checkpoint, or a run directory
            (its newest intact checkpoint).
        recipe: recipe name or YAML file. Default: the configuration of the run, else the settings inside an exported
            model, else ``demo`` for a model with the tiny policy's vocabulary, else ``geovlm-r1``.
        overrides: ``section.key=value`` overrides of that configuration.

    Raises:
        ModelError: the model does not exist.
        RunError: the run has no intact checkpoint.
        ConfigError: a setting is invalid, or the settings in a folder name plugins or tasks that ``recipe`` does not.
    """
    overrides = list(overrides)
    # Before the model: plugins may add its family.
    import_plugins(overrides)
    given = load_config(recipe, overrides) if recipe else None
    folder = Path(model)
    settings = _run_settings(folder)
    trained = load_stored(settings) if settings else None
    run = settings.parent if settings else None
    is_run = run == folder and not _has_weights(folder)
    folder = _newest(folder) if is_run else folder
    adapter = (folder / ADAPTER_FILE).is_file()
    path = folder if adapter else model_folder(model if not is_run else str(folder))
    exported = path / SETTINGS_FILE
    stored = settings or (exported if exported.is_file() else None)
    default = load_stored(stored, overrides) if stored and not given else None
    config = given or default or load_config(TINY_RECIPE if _is_tiny(path, adapter) else DEFAULT_RECIPE, overrides)
    return ModelRef(path, adapter, run, config, trained)


def _run_settings(folder: Path) -> Path | None:
    """The configuration file of the run that ``folder`` is, or that produced the model, checkpoint or adapter in it."""
    parents = folder.absolute().parents
    candidates = [folder, *parents[: 1 if folder.name == "adapter" else 0]]
    if (folder / STATE_FILE).is_file():
        candidates += parents[1:2]
    files = [candidate / name for candidate in candidates for name in RUN_FILES]
    # `train` writes none beside weights: a config.yaml there is of another tool.
    return next((f for f in files if f.is_file() and not (f.name == RUN_FILES[0] and _has_weights(f.parent))), None)


def _newest(run: Path) -> Path:
    """The newest checkpoint with valid checksums; the run may still be writing others."""
    checkpoints = [f for f in (run / "checkpoints").glob("step-*") if NAME.fullmatch(f.name)]
    problem: object = "none"
    for folder in sorted(checkpoints, key=lambda f: int(f.name.removeprefix("step-")), reverse=True):
        try:
            verified_state(folder)
            return folder
        except RunError as error:
            log.warning("%s", error)
            problem = error
    raise RunError(f"run {run}: expected an intact checkpoint in {run / 'checkpoints'}, found {problem}")


def _is_model(folder: Path) -> bool:
    return (folder / MODEL_FILE).is_file()


def _has_weights(folder: Path) -> bool:
    return _is_model(folder) or (folder / ADAPTER_FILE).is_file()


def adapter_base(folder: Path) -> str:
    """The path or name of the base model in the settings of an adapter."""
    return str(read_object(folder / ADAPTER_FILE).get("base_model_name_or_path"))


def _is_tiny(path: Path, adapter: bool) -> bool:
    """Whether a model has the tiny policy's vocabulary, which does not cover the prompts of ``geovlm-r1``."""
    base = Path(adapter_base(path)) if adapter else path
    return _is_model(base) and _vocabulary(base) == _vocabulary(model_folder(TINY))


def _vocabulary(folder: Path) -> int | None:
    values = read_object(folder / MODEL_FILE)
    return values.get("vocab_size") or values.get("text_config", {}).get("vocab_size")
