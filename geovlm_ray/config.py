"""Run configuration: one typed root whose sections are defined next to the code that reads them.

A configuration is a recipe or a YAML file plus ``key=value`` overrides. Unknown keys and values out of range
are errors; no value is corrected silently.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import Field, ValidationError, model_validator

from geovlm_ray.core.errors import ConfigError, did_you_mean
from geovlm_ray.core.files import read_text
from geovlm_ray.core.placement import PlacementConfig
from geovlm_ray.core.redaction import has_password
from geovlm_ray.core.section import PathText, Section
from geovlm_ray.core.setting_errors import explain
from geovlm_ray.core.setting_names import REFUSED, RENAMED, SYNONYMS
from geovlm_ray.core.yaml_text import parse_yaml
from geovlm_ray.data.config import DataConfig
from geovlm_ray.learner.config import LearnerConfig
from geovlm_ray.learner.sft.config import SftConfig
from geovlm_ray.model.config import ModelConfig, PromptConfig
from geovlm_ray.rewards.config import RewardConfig
from geovlm_ray.rewards.registry import check_reward
from geovlm_ray.rollout.config import RolloutConfig
from geovlm_ray.tasks import TASKS
from geovlm_ray.tasks.extensions import Extensions, activate, active
from geovlm_ray.transport import TRANSPORTS
from geovlm_ray.transport.base import Transport
from geovlm_ray.transport.choice import AUTO, check_transport, fitting_transport
from geovlm_ray.transport.config import SyncConfig

SectionT = TypeVar("SectionT", bound=Section)


class RunConfig(Section):
    """Name, location, length and monitoring of the run."""

    name: str = Field("run", pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]*$", description="run directory, inside `dir`")
    dir: PathText = Field(
        "runs", description="parent directory of all runs; on a cluster, on storage shared by all nodes"
    )
    seed: int = Field(0, ge=0, description="seed of data order, sampling and new weights")
    steps: int = Field(100, ge=1, description="learner steps")
    wait_for_nodes_s: float = Field(
        0, ge=0, description="seconds to wait until the cluster, or its autoscaler, has the resources for all actors"
    )
    restarts: int = Field(
        3,
        ge=0,
        description="automatic restarts from the latest checkpoint after the loss of a component that cannot be "
        "replaced on its own, such as a learner",
    )
    step_limit_s: float = Field(
        3600, gt=0, description="seconds after which a step counts as hung and a report on the actors is written"
    )
    stop_if_stuck: Literal["never", "nothing_scored", "always"] = Field(
        "nothing_scored",
        description="end, with exit code 3, a run that learnt nothing for ten steps, if nothing was scored or always",
    )
    trace_steps: list[Annotated[int, Field(ge=1)]] = Field(
        [], description="steps, counted from 1, for which a trace is written"
    )
    trackers: list[str] = Field(
        [], description="experiment trackers beside TensorBoard: wandb, mlflow, trackio, or one of a plugin"
    )
    project: str = Field("geovlm_ray", min_length=1, description="project or experiment of the trackers")
    completions_every: int = Field(
        50, ge=0, description="steps between pictures and tables of completions in TensorBoard and trackers; 0: none"
    )
    log_level: Literal["info", "debug"] = Field(
        "info", description="log level of driver and actors; debug adds every weight update"
    )

    @property
    def folder(self) -> Path:
        """The run directory."""
        return Path(self.dir) / self.name


class LoopConfig(Section):
    """Staleness bound, and resampling of groups that teach nothing."""

    max_staleness: int = Field(
        0, ge=0, le=64, description="batches that rollouts may run ahead of the learner; 0: on-policy"
    )
    resample: int = Field(
        0,
        ge=0,
        le=16,
        description="rounds of dynamic sampling: replace groups with equal rewards, or outside learner.group_accuracy, "
        "by groups of other prompts of the same task before training; 0: train on them unchanged",
    )


class CheckpointConfig(Section):
    """Checkpoint frequency and retention; `sft` reads only `keep`."""

    every: int = Field(10, ge=1, description="learner steps between checkpoints; the last step is always saved")
    keep: int = Field(2, ge=1, description="number of latest checkpoints to keep")
    best: str | None = Field(
        None, description="metric (reward/mean, ...); the checkpoint with its largest value is kept as well"
    )
    url: PathText | None = Field(
        None,
        description="fsspec URL, such as s3://bucket/runs, to mirror checkpoints to, in a folder named after the run; "
        "a run resumes from the mirror if its checkpoint is newer than the local ones",
    )


class EvaluationConfig(Section):
    """Held-out examples scored before and after training, and benchmarks evaluated during training."""

    num_examples: int = Field(
        0,
        ge=0,
        description="held-out examples, equally many of each trained task: generated scenes, or records of splits that "
        "are not trained on; 0 disables",
    )
    every: int = Field(
        0, ge=0, description="learner steps between evaluations on `benchmarks`, run alongside training; 0 disables"
    )
    benchmarks: tuple[PathText, ...] = Field(
        (), description="names shown by `geovlm-ray evaluate --list`, or paths of your own benchmarks"
    )
    data: PathText = Field("", description="folder with one subfolder per benchmark that is not generated")
    records: int = Field(64, ge=1, description="records per benchmark, evenly spaced and fixed")


class Config(Extensions):
    """The complete configuration of a run."""

    run: RunConfig = RunConfig()
    model: ModelConfig = ModelConfig()
    prompt: PromptConfig = PromptConfig()
    data: DataConfig = DataConfig()
    placement: PlacementConfig = PlacementConfig()
    rollout: RolloutConfig = RolloutConfig()
    reward: RewardConfig = RewardConfig()
    learner: LearnerConfig = LearnerConfig()
    loop: LoopConfig = LoopConfig()
    sync: SyncConfig = SyncConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    sft: SftConfig = SftConfig()

    @model_validator(mode="after")
    def _check_rewards(self) -> Config:
        for name, form in self.reward.forms.items():
            check_reward(f"reward.forms.{name}", name, form)
        for task in TASKS.values():
            for form in (task.reward, task.default_reward):
                check_reward(f"tasks.{task.name}.reward", task.name, form)
        return self

    @property
    def transport(self) -> type[Transport]:
        """The transport that ``sync.transport`` names or, with ``auto``, that fits the placement."""
        fitting = fitting_transport(self.placement, self.rollout.tensor_parallel, self.model.sends_adapter)
        return TRANSPORTS[fitting if self.sync.transport == AUTO else self.sync.transport]

    def _check_colocated(self) -> None:
        rollout, learner = self.placement.rollout, self.placement.learner
        gpus = rollout.num_gpus + learner.num_gpus
        problems = {
            f"placement.learner.actors={rollout.actors}, one for each rollout actor": learner.actors != rollout.actors,
            "placement.rollout.num_gpus and placement.learner.num_gpus to make one GPU, or both 0": gpus not in (0, 1)
            or (gpus == 1 and 1 in (rollout.num_gpus, learner.num_gpus)),
            "loop.max_staleness=0": self.loop.max_staleness > 0,
            "sync.mode=drained": self.sync.mode != "drained",
            "rollout.tensor_parallel=1": self.rollout.tensor_parallel > 1,
        }
        if any(problems.values()):
            raise ValueError(
                f"placement.colocate=true: expected {'; '.join(k for k, found in problems.items() if found)}"
            )

    def _check_advantage_per_reward(self) -> None:
        without_effect = {
            f"reward.confidence={self.reward.confidence}": self.reward.confidence != "none",
            f"reward.combine={self.reward.combine}": self.reward.combine != "sum",
            "reward.normalize": bool(self.reward.normalize),
            "learner.kl_in=reward": self.learner.kl_beta > 0 and not self.learner.kl_in_loss,
        }
        if found := [name for name, is_set in without_effect.items() if is_set]:
            raise ValueError(
                "learner.advantage_per_reward=true: expected rewards that are the sum of format and accuracy, each of "
                f"which it scales by itself, found {', '.join(found)}"
            )

    @model_validator(mode="after")
    def _check_values(self) -> Config:
        rollout, evaluation = self.rollout, self.evaluation
        if self.sync.transport != AUTO:
            check_transport(self.sync.transport)
        workers, gpus = rollout.tensor_parallel, self.placement.rollout.num_gpus
        if gpus and workers != max(gpus, 1):
            raise ValueError(
                f"rollout.tensor_parallel: expected placement.rollout.num_gpus={gpus:g}, the GPUs of a rollout actor, "
                f"found {workers}"
            )
        if workers > 1 and self.transport.vllm_backend is None and not self.model.sends_adapter:
            raise ValueError(
                f"sync.transport={self.sync.transport}: expected nccl, or gloo without GPUs, since the workers of "
                "rollout.tensor_parallel receive the weights themselves"
            )
        if rollout.max_tokens >= rollout.max_model_len:
            raise ValueError(
                f"rollout.max_tokens ({rollout.max_tokens}) must be below rollout.max_model_len "
                f"({rollout.max_model_len}), which includes the prompt"
            )
        ranks, engines = self.placement.learner, self.placement.rollout
        if self.placement.colocate:
            self._check_colocated()
        elif engines.actors > 1 and 0 < engines.num_gpus <= 0.5:
            raise ValueError(
                f"placement.rollout.num_gpus: expected more than half a GPU for each of {engines.actors} rollout "
                f"actors, found {engines.num_gpus:g}: vLLM counts what another engine on its GPU allocates as its own"
            )
        elif ranks.actors > 1 and 0 < ranks.num_gpus <= 0.5:
            raise ValueError(
                f"placement.learner.num_gpus: expected more than half a GPU for each of {ranks.actors} learner actors, "
                f"found {ranks.num_gpus:g}: NCCL does not run two of them on one GPU"
            )
        if self.learner.advantage_per_reward:
            self._check_advantage_per_reward()
        if has_password(self.checkpoint.url or ""):
            raise ValueError(
                "checkpoint.url: expected a URL without a password, since the configuration is saved in the run "
                "directory; pass the password through the environment or fsspec's configuration"
            )
        if bool(evaluation.every) != bool(evaluation.benchmarks):
            raise ValueError(
                "evaluation.every and evaluation.benchmarks: expected both or neither, found "
                f"{evaluation.every} and {list(evaluation.benchmarks)}"
            )
        return self


def recipe_names() -> list[str]:
    """Names of the recipes that ship with the package."""
    return sorted(p.name.removesuffix(".yaml") for p in (files("geovlm_ray.training") / "recipes").iterdir())


def load_config(source: str, overrides: Iterable[str] = ()) -> Config:
    """Load a recipe by name, or a YAML file, that the user names, and apply ``section.key=value`` overrides.

    Its plugins are imported and its tasks registered in this process (`activate`).

    Raises:
        ConfigError: the source is neither a recipe nor a file or not a mapping, a key or value is invalid, or a plugin
            cannot be imported.
    """
    return _validated(_overridden(_read(source), overrides), source)


def load_stored(file: Path, overrides: Iterable[str] = (), *, sections: Sequence[str] = ()) -> Config:
    """Load settings found in a folder, which may come from elsewhere: they import nothing and read no variables.

    With ``sections``, only these are read.

    Raises:
        ConfigError: as `load_config`; also for a plugin or task that is not active in this process.
    """
    found = _read(str(file), variables=False)
    values = {key: value for key, value in found.items() if not sections or key in sections}
    stored = _extensions(values, str(file))
    plugins = set(map(os.path.realpath, active().plugins))
    missing = [p for p in stored.plugins if not p.isprintable() or os.path.realpath(p) not in plugins]
    missing += [name for name, task in stored.tasks.items() if active().tasks.get(name) != task]
    if missing:
        raise ConfigError(
            f"{file}: expected settings without plugins and tasks of their own, found {', '.join(missing)}; pass "
            f"--recipe {file} to use them: that runs their code"
        )
    return _validated(_overridden(values, overrides), str(file))


def import_plugins(overrides: Iterable[str]) -> None:
    """Import the plugins, and register the tasks, that overrides name; raises ConfigError as `load_config`."""
    activate(_extensions(_overridden({}, overrides), "command line"))


def reward_config(overrides: Iterable[str] = (), recipe: str | None = None) -> RewardConfig:
    """The reward section alone, from ``reward.key=value`` overrides of the defaults or of a recipe.

    Raises:
        ConfigError: a key or value is invalid, or an override is for another section.
    """
    given = list(overrides)
    foreign = next((o for o in given if not o.startswith(("reward.", "reward="))), None)
    if foreign:
        raise ConfigError(f"override {foreign!r}: expected reward.key=value")
    return _validated(_overridden(_read(recipe) if recipe else {}, given), recipe or "command line").reward


def to_yaml(config: Config) -> str:
    """The resolved configuration as YAML that `load_config` reads."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def flat(config: Extensions) -> dict[str, Any]:
    """All values of a configuration, YAML-serialisable, keyed by ``section.key``."""
    return dict(_leaves(config.model_dump(mode="json")))


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _overridden(values: dict[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    if isinstance(values.get("reward"), str):
        values["reward"] = {"function": values["reward"]}
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise ConfigError(f"override {override!r}: expected key=value, such as run.name=first")
        value = parse_yaml(text, f"override {override!r}")
        # `reward=path.py:function` is shorthand for reward.function and keeps the other keys of the section.
        name = "reward.function" if key == "reward" and isinstance(value, str) else key
        _assign(values, name.split("."), value)
    return values


def _validated(values: dict[str, Any], source: str) -> Config:
    # Other sections may name what plugins and tasks add.
    activate(_extensions(values, source))
    return _valid(Config, values, source)


def _extensions(values: dict[str, Any], source: str) -> Extensions:
    return _valid(Extensions, {key: values[key] for key in Extensions.model_fields if key in values}, source)


def _valid(section: type[SectionT], values: dict[str, Any], source: str) -> SectionT:
    try:
        return section.model_validate(values)
    except ValidationError as error:
        names = {"renamed": RENAMED, "refused": REFUSED, "synonyms": SYNONYMS}
        raise ConfigError("; ".join(explain(e, source, Config, **names) for e in error.errors())) from error


def _read(source: str, variables: bool = True) -> dict[str, Any]:
    if source in recipe_names():
        text = (files("geovlm_ray.training") / "recipes" / f"{source}.yaml").read_text()
    else:
        path = Path(source)
        if not path.is_file():
            names = recipe_names()
            hint = did_you_mean(source, names)
            raise ConfigError(f"{source!r} is neither a recipe ({', '.join(names)}) nor a file{hint}")
        text = read_text(path)
    values = parse_yaml(text, source, variables=variables) or {}
    if not isinstance(values, dict):
        raise ConfigError(f"{source}: expected sections with keys, found {type(values).__name__}")
    return values


def _assign(values: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        if not isinstance(values.get(key), dict):
            values[key] = {}
        values = values[key]
    values[keys[-1]] = value


def check_unchanged(config: Config, file: Path, may_change: Sequence[str], what: str, remedy: str) -> None:
    """Compare a configuration with the one stored in ``file``, if it exists, before a run is resumed.

    ``what`` names the folder in the error message, ``remedy`` says what to do.

    Raises:
        ConfigError: they differ in a key that is not in ``may_change``.
    """
    if not file.is_file():
        return
    values = _read(str(file), variables=False)
    stored, current = _extensions(values, str(file)), Extensions(plugins=config.plugins, tasks=config.tasks)
    if stored == current:
        # The plugins and tasks are active: other values may name what they add.
        stored, current = _valid(Config, values, str(file)), config
    old, new = flat(stored), flat(current)
    changed = [k for k in {**old, **new} if old.get(k) != new.get(k) and k not in may_change]
    if changed:
        key = changed[0]
        raise ConfigError(
            f"{what} {file.parent} holds a run with a different configuration: {key} was {old.get(key)!r}, is now "
            f"{new.get(key)!r}{f' (and {len(changed) - 1} more keys)' if changed[1:] else ''}; {remedy}"
        )
