"""The configuration of a run: one typed root, its sections defined beside the code that reads them.

A configuration is a recipe or a YAML file plus ``key=value`` overrides. Unknown keys and values out of range
are errors; nothing is repaired.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from geovlm_ray.core.errors import ConfigError
from geovlm_ray.core.files import read_text
from geovlm_ray.core.placement import PlacementConfig
from geovlm_ray.core.redaction import has_password
from geovlm_ray.data.config import DataConfig
from geovlm_ray.learner.config import LearnerConfig
from geovlm_ray.learner.sft.config import SftConfig
from geovlm_ray.model.config import ModelConfig, PromptConfig
from geovlm_ray.rewards.config import RewardConfig
from geovlm_ray.rewards.registry import check_forms
from geovlm_ray.rollout.config import RolloutConfig

RENAMED = {"evaluation.scenes": "evaluation.num_examples"}
"""Keys of earlier versions, with their present names."""


class Section(BaseModel):
    """A part of the configuration: immutable, and without unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class RunConfig(Section):
    """The run as a whole."""

    name: str = Field("run", pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]*$", description="folder of the run below `dir`")
    dir: str = Field("runs", description="folder of all runs; on a cluster, one that every node sees")
    seed: int = Field(0, ge=0)
    steps: int = Field(100, ge=1, description="learner steps")
    wait_for_nodes_s: float = Field(
        0, ge=0, description="how long to wait for the cluster, or its autoscaler, to have room for all actors"
    )
    restarts: int = Field(
        3,
        ge=0,
        description="times that a run goes on by itself from its newest checkpoint after a part died that cannot be "
        "replaced alone, such as a learner",
    )
    step_limit_s: float = Field(
        3600, gt=0, description="seconds after which a step counts as hanging, and who waits for whom is written down"
    )
    trace_steps: list[Annotated[int, Field(ge=1)]] = Field(
        [], description="steps, counted from 1, after which a trace of the step is written"
    )
    wandb: str | None = Field(None, min_length=1, description="project at Weights & Biases that is sent the metrics")
    log_level: Literal["info", "debug"] = Field(
        "info", description="of the logs of driver and actors; debug adds every version of the weights"
    )

    @property
    def folder(self) -> Path:
        """Where the run leaves everything."""
        return Path(self.dir) / self.name


class LoopConfig(Section):
    """How far rollouts may run ahead of the learner, and what becomes of groups that teach nothing."""

    max_staleness: int = Field(
        0, ge=0, le=64, description="0: on-policy; 1: the next batch is drawn while the learner trains; more: further"
    )
    resample: int = Field(
        0,
        ge=0,
        le=16,
        description="times that a prompt whose completions all earned the same is replaced by another one of its task "
        "before training (dynamic sampling); 0: such groups are trained on as they are",
    )


class SyncConfig(Section):
    """When engines take new weights, and the check that they then agree with the learner."""

    mode: Literal["drained", "in_flight"] = Field(
        "drained",
        description="new weights wait until the batches that were submitted before them are drawn, or are taken "
        "between two steps of an engine, and completions under way go on with them",
    )
    parity_tolerance: float = Field(
        1e-3, gt=0, description="largest difference of a token's log-prob; bf16 needs about 0.5"
    )
    parity_prompts: int = Field(4, ge=1, description="prompts of the fixed probe batch")
    parity_tokens: int = Field(4, ge=1, description="tokens per completion of the probe batch")


class CheckpointConfig(Section):
    """What is kept to resume from; `sft` takes only `keep` of it."""

    every: int = Field(10, ge=1, description="learner steps between two checkpoints; the last step always has one")
    keep: int = Field(2, ge=1, description="newest checkpoints kept")
    best: str | None = Field(
        None, description="metric (reward/mean, ...) of whose largest value the checkpoint is kept too"
    )
    url: str | None = Field(
        None,
        description="where checkpoints are copied to as well, below the run's name, and taken from where they are "
        "newer: any URL that fsspec knows, such as s3://bucket/runs",
    )


class EvaluationConfig(Section):
    """Held-out examples scored before the first and after the last step, and benchmarks on the way."""

    num_examples: int = Field(
        0,
        ge=0,
        description="drawn scenes, or records of splits that are not trained on, in equal parts of the trained tasks; "
        "0 for no evaluation",
    )
    every: int = Field(
        0, ge=0, description="learner steps between two evaluations on `benchmarks`, beside the training; 0 for none"
    )
    benchmarks: tuple[str, ...] = Field(
        (), description="names of `geovlm-ray evaluate --list`, drawn, or paths of one's own"
    )
    data: str = Field("", description="folder that has a folder for each of the benchmarks that are not drawn")
    records: int = Field(64, ge=1, description="records of each benchmark, evenly chosen and always the same")


class Config(Section):
    """A whole run."""

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
    def _reward_forms_fit(self) -> Config:
        check_forms(self.reward)
        return self

    @model_validator(mode="after")
    def _lengths_fit(self) -> Config:
        if self.rollout.max_tokens >= self.rollout.max_model_len:
            raise ValueError(
                f"rollout.max_tokens ({self.rollout.max_tokens}) must be below rollout.max_model_len "
                f"({self.rollout.max_model_len}), which holds the prompt too"
            )
        return self

    @model_validator(mode="after")
    def _no_password_is_written_down(self) -> Config:
        if has_password(self.checkpoint.url or ""):
            raise ValueError(
                "checkpoint.url: expected a URL without a password, for a run's folder holds its configuration; give "
                "the password by the environment or fsspec's own configuration"
            )
        return self

    @model_validator(mode="after")
    def _something_to_evaluate(self) -> Config:
        if bool(self.evaluation.every) != bool(self.evaluation.benchmarks):
            raise ValueError(
                "evaluation.every and evaluation.benchmarks: expected both or none, found "
                f"{self.evaluation.every} and {list(self.evaluation.benchmarks)}"
            )
        return self


def recipe_names() -> list[str]:
    """Recipes that ship with the package."""
    return sorted(p.name.removesuffix(".yaml") for p in (files("geovlm_ray.training") / "recipes").iterdir())


def load_config(source: str, overrides: Iterable[str] = ()) -> Config:
    """A recipe's name or a YAML file, with ``section.key=value`` overrides.

    Raises:
        ConfigError: the source is neither, is no mapping, or a key or value is wrong.
    """
    return _validated(_overridden(_read(source), overrides), source)


def reward_config(overrides: Iterable[str] = ()) -> RewardConfig:
    """The reward section alone, from ``reward.key=value`` overrides.

    Raises:
        ConfigError: a key or value is wrong, or an override is of another section.
    """
    given = list(overrides)
    foreign = next((o for o in given if not o.startswith(("reward.", "reward="))), None)
    if foreign:
        raise ConfigError(f"override {foreign!r}: expected reward.key=value")
    return _validated(_overridden({}, given), "command line").reward


def to_yaml(config: Config) -> str:
    """The resolved configuration, in the form that `load_config` reads."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def flat(config: Config) -> dict[str, Any]:
    """Every value of a configuration as YAML has it, with keys as ``section.key``."""
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
        value = _parse(text, override)
        # A function may stand in place of the reward section, and must not replace what else the section says.
        name = "reward.function" if key == "reward" and isinstance(value, str) else key
        _assign(values, name.split("."), value)
    return values


def _validated(values: dict[str, Any], source: str) -> Config:
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError("; ".join(_explain(e, source) for e in error.errors())) from error


def _read(source: str) -> dict[str, Any]:
    if source in recipe_names():
        text = (files("geovlm_ray.training") / "recipes" / f"{source}.yaml").read_text()
    else:
        path = Path(source)
        if not path.is_file():
            near = difflib.get_close_matches(source, recipe_names(), 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"{source!r} is neither a recipe ({', '.join(recipe_names())}) nor a file{hint}")
        text = read_text(path)
    values = _parse(text, source) or {}
    if not isinstance(values, dict):
        raise ConfigError(f"{source}: expected sections with keys, found {type(values).__name__}")
    return values


def _parse(text: str, where: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from error


def _assign(values: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        if not isinstance(values.get(key), dict):
            values[key] = {}
        values = values[key]
    values[keys[-1]] = value


def _explain(error: Mapping[str, Any], source: str) -> str:
    location = [str(part) for part in error["loc"]]
    key = ".".join(location)
    if error["type"] != "extra_forbidden":
        found = f", found {error['input']!r}" if not isinstance(error.get("input"), (dict, BaseModel)) else ""
        return f"{source}: {key + ': ' if key else ''}{error['msg'].removeprefix('Value error, ')}{found}"
    if key in RENAMED:
        return f"{source}: unknown key {key!r}; it is now {RENAMED[key]!r}"
    fields = _fields(location[:-1])
    near = difflib.get_close_matches(location[-1], fields, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(fields)}"
    return f"{source}: unknown key {key!r}; {hint}"


def _fields(path: list[str]) -> list[str]:
    """Names of the keys that a section may hold; empty where the path leads through a list or mapping."""
    model: Any = Config
    for part in path:
        annotation = model.model_fields[part].annotation if part in getattr(model, "model_fields", {}) else None
        candidates = [annotation, *getattr(annotation, "__args__", ())]
        model = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)
        if model is None:
            return []
    return list(model.model_fields)


def check_same(config: Config, file: Path, may_change: Sequence[str], what: str, remedy: str) -> None:
    """Compare a configuration with the one that a folder's run began with, if ``file`` holds one.

    Raises:
        ConfigError: they differ in a key that is not among ``may_change``.
    """
    if not file.is_file():
        return
    old = flat(load_config(str(file)))
    new = flat(config)
    changed = [k for k in {**old, **new} if old.get(k) != new.get(k) and k not in may_change]
    if changed:
        key = changed[0]
        raise ConfigError(
            f"{what} {file.parent} holds a run with another configuration: {key} was {old.get(key)!r}, is now "
            f"{new.get(key)!r}{f' (and {len(changed) - 1} more keys)' if changed[1:] else ''}; {remedy}"
        )
