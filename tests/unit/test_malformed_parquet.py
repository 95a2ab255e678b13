"""Malformed Parquet files: every use of a dataset ends in one DataError that names shard, row and column."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geovlm_ray.config import load_config
from geovlm_ray.core.errors import DataError
from geovlm_ray.data.answer_format import DATASET_FORMAT
from geovlm_ray.data.config import DataConfig
from geovlm_ray.data.parquet import open_datasets
from geovlm_ray.data.quarantine import read_quarantine
from geovlm_ray.data.sources import open_stream
from geovlm_ray.data.stats import collect_stats
from geovlm_ray.data.table import Row, to_row, to_table
from geovlm_ray.data.validation.before_training import check_stream
from geovlm_ray.data.validation.checks import check_records
from geovlm_ray.data.validation.validate import ValidationReport, validate
from geovlm_ray.report.preview import preview
from tests.unit.malformed import IN_FILE, IN_ROW, ROW, SHARD, TRAIN, malformed_dataset

WHERE = f"{SHARD}, row {ROW}"
CONFIG = load_config("demo")


def train(folder: Path) -> None:
    stream = open_stream(DataConfig(source="parquet", path=str(folder)))
    check_stream(stream, stream.tasks, [], lambda example: None, images=9)


def stats(folder: Path) -> None:
    collect_stats(open_datasets(folder), workers=1, on_progress=lambda done: None)


def show(folder: Path) -> None:
    preview(open_datasets(folder), CONFIG, DATASET_FORMAT, each=6, seed=0, need_images=True)


def validated(folder: Path) -> ValidationReport:
    return validate(open_datasets(folder), need_images=True, workers=1, on_progress=lambda what, done: None)


USES: list[Callable[[Path], Any]] = [train, stats, show]


@pytest.mark.parametrize("name", IN_ROW)
def test_fault_in_a_row_is_named_with_shard_and_row(name: str, tmp_path: Path) -> None:
    fault, message = IN_ROW[name]
    folder = malformed_dataset(tmp_path / "data", fault)
    for use in USES:
        with pytest.raises(DataError, match=f"{WHERE}.*{message}") as error:
            use(folder)
        assert len(str(error.value)) < 1_000
    report = validated(folder)
    if report.unreadable:
        ((_, problem),) = report.unreadable.items()
        assert WHERE in problem
    else:
        assert [(entry.shard, entry.row) for entry in read_quarantine(folder, "validate")] == [(SHARD, ROW)]
        train(folder)


@pytest.mark.parametrize("name", IN_FILE)
def test_fault_of_a_file_is_named_with_the_file(name: str, tmp_path: Path) -> None:
    fault, message = IN_FILE[name]
    folder = malformed_dataset(tmp_path / "data", fault)
    for use in USES:
        with pytest.raises(DataError, match=message):
            use(folder)
    if SHARD in message:
        assert list(validated(folder).unreadable) == [folder / SHARD]
    else:
        with pytest.raises(DataError, match=message):
            validated(folder)


def test_dataset_without_a_fault_is_accepted_by_every_use(tmp_path: Path) -> None:
    folder = malformed_dataset(tmp_path / "data", lambda folder: None)
    for use in USES:
        use(folder)
    assert (validated(folder).bad, validated(folder).records) == (0, 4)


@pytest.mark.parametrize("rows", [0, 1])
def test_shard_without_rows_is_an_error_only_if_nothing_is_left(rows: int, tmp_path: Path) -> None:
    folder = malformed_dataset(tmp_path / "data", lambda folder: None)
    pq.write_table(to_table([Row(TRAIN[0])][:rows]), folder / SHARD)
    if rows:
        train(folder)
    else:
        with pytest.raises(DataError, match="expected at least one record of the split 'train', found splits: none"):
            train(folder)


def values(kind: Any) -> st.SearchStrategy[Any]:
    """Values of an Arrow type as ``to_pylist`` returns them, null included."""
    if pa.types.is_struct(kind):
        strategy: st.SearchStrategy[Any] = st.fixed_dictionaries({field.name: values(field.type) for field in kind})
    elif pa.types.is_list(kind):
        strategy = st.lists(values(kind.value_type), max_size=6)
    elif pa.types.is_string(kind):
        strategy = st.sampled_from(["", "vqa", "pixel", "brackets", "{}", "<|im_end|>", "\0", "\x1b[1m"]) | st.text()
    elif pa.types.is_floating(kind):
        strategy = st.floats() | st.sampled_from([0.0, 50.0, -math.inf])
    else:
        strategy = st.integers(-(2**31), 2**31 - 1)
    return st.none() | strategy


(VALID,) = to_table([Row(TRAIN[1])]).to_pylist()
COLUMNS = {field.name: values(field.type) for field in to_table([]).schema}


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(sorted(COLUMNS)).flatmap(lambda name: st.tuples(st.just(name), COLUMNS[name])))
def test_any_value_of_a_column_gives_a_row_or_a_data_error(change: tuple[str, Any]) -> None:
    record = {**VALID, **dict([change])}
    with suppress(DataError):
        assert to_row(record).example.task == record["task"]
    (check,) = check_records([record], need_images=True)
    assert check.fault is not None or check.example is not None
