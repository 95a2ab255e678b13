"""What a user may mean by a model: a run, a checkpoint, an adapter, a folder, or a name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from geovlm_ray.checkpoint import STATE_FILE, CheckpointFolder
from geovlm_ray.config import Config, load_config
from geovlm_ray.errors import RunError
from geovlm_ray.files import read_object
from geovlm_ray.policy.config import TINY
from geovlm_ray.policy.model import resolve_model

ADAPTER_FILE = "adapter_config.json"
OWN_RECIPE, TINY_RECIPE = "geovlm-r1", "demo"


@dataclass(frozen=True)
class Located:
    """A model's folder, or that of an adapter; the run that left it there; and with what its prompts are written."""

    path: Path
    adapter: bool
    run: Path | None
    config: Config


def locate(model: str, recipe: str | None = None, overrides: Iterable[str] = ()) -> Located:
    """Find a model.

    Args:
        model: ``tiny``, a Hugging Face name, the folder of a model or of a PEFT adapter, a checkpoint of a run, or a
            run directory, which stands for its newest whole checkpoint.
        recipe: recipe or file of the settings; else those of the run, of the tiny model, or of ``geovlm-r1``.
        overrides: ``section.key=value``, on top of them.

    Raises:
        ModelError: there is no such model.
        RunError: the run has no checkpoint.
        ConfigError: a setting is wrong.
    """
    folder = Path(model)
    run = next((path for path in (folder, *folder.absolute().parents[:2]) if _is_run(path, folder)), None)
    if run == folder:
        found = CheckpointFolder(run / "checkpoints", keep=1).latest()
        if found is None:
            raise RunError(f"run {run}: expected a checkpoint in {run / 'checkpoints'}, found none")
        folder = found[1]
    adapter = (folder / ADAPTER_FILE).is_file()
    path = folder if adapter else resolve_model(model if folder == Path(model) else str(folder))
    source = recipe or (str(run / "config.yaml") if run else TINY_RECIPE if _is_tiny(path) else OWN_RECIPE)
    return Located(path, adapter, run, load_config(source, overrides))


def _is_run(path: Path, folder: Path) -> bool:
    """Whether a folder is the run directory of ``folder``: itself, or two floors above a checkpoint."""
    is_run = (path / "config.yaml").is_file() and (path / "checkpoints").is_dir()
    return is_run and (path == folder or (folder / STATE_FILE).is_file())


def _is_tiny(path: Path) -> bool:
    """Whether a model has the vocabulary of the tiny policy, for which the prompts of ``geovlm-r1`` are too hard."""
    config = path / "config.json"
    return config.is_file() and _vocabulary(config) == _vocabulary(resolve_model(TINY) / "config.json")


def _vocabulary(config: Path) -> int | None:
    values = read_object(config)
    return values.get("vocab_size") or values.get("text_config", {}).get("vocab_size")
