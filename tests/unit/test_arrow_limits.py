"""Small Parquet and Arrow files cannot occupy much memory: values are measured before they are decoded."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from geovlm_ray.core.errors import DataError
from geovlm_ray.data import arrow_limits, sample_rows
from geovlm_ray.data.arrow_limits import decoded_bytes
from geovlm_ray.data.formats.base import Source, Unit
from geovlm_ray.data.formats.shards import ShardRecord, shard_units
from geovlm_ray.data.parquet import open_datasets
from geovlm_ray.data.parquet_files import read_batches
from geovlm_ray.data.sample_rows import read_rows
from tests.unit.datasets import example, write_dataset

TEXT = "x" * 2**16
ROWS = 3_000
SCHEMA = pa.schema([("text", pa.string()), ("texts", pa.list_(pa.string()))])


@pytest.fixture(autouse=True)
def limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits of kilobytes, so that tests are quick."""
    monkeypatch.setattr(arrow_limits, "MAX_BATCH_BYTES", 2**20)
    monkeypatch.setattr(arrow_limits, "MAX_GROUP_BYTES", 2**22)


def repeated(column: str, path: Path) -> Path:
    """Write a file of a few kB in which every row has the same long text."""
    texts = [TEXT] * ROWS if column == "text" else [""] * ROWS
    lists = [[TEXT]] * ROWS if column == "texts" else [[]] * ROWS
    pq.write_table(pa.table([texts, lists], schema=SCHEMA), path, compression="zstd")
    assert path.stat().st_size < 20_000
    return path


@pytest.mark.parametrize("column", ["text", "texts"])
def test_a_text_that_a_file_repeats_counts_with_every_row(column: str, tmp_path: Path) -> None:
    path = repeated(column, tmp_path / "a.parquet")
    message = rf"{path}, rows 0 to 1999: expected at most 1 MiB of values, found 125 MiB"
    with pytest.raises(DataError, match=message):
        list(read_batches(path, SCHEMA))
    with pytest.raises(DataError, match=message):
        read_rows(path, SCHEMA.names)


def test_row_groups_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrow_limits, "MAX_GROUP_BYTES", 2**16)
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table([["a"] * ROWS, [["b"] * 50] * ROWS], schema=SCHEMA), path, row_group_size=ROWS // 2)
    with pytest.raises(DataError, match=rf"{path}, row group 0: expected at most 0 MiB of values, found 1 MiB"):
        list(read_batches(path, SCHEMA))


def test_rows_that_are_read_at_once_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table([["a" * 100] * ROWS, [[]] * ROWS], schema=SCHEMA), path)
    assert [row["text"] for row in read_rows(path, ["text"])] == ["a" * 100] * ROWS
    monkeypatch.setattr(sample_rows, "MAX_FILE_BYTES", 100 * ROWS)
    with pytest.raises(DataError, match=rf"{path}: expected at most 0 MiB of values, found more"):
        read_rows(path, ["text"])


def test_records_of_datasets_are_read_as_written(tmp_path: Path) -> None:
    examples = [example(k, ("a.png", f"{k % 3}.png"), reasoning="why" if k % 2 else None) for k in range(50)]
    (dataset,) = open_datasets(write_dataset(tmp_path / "data", examples))
    assert [row.example for _, _, row in dataset.rows()] == examples


def units(path: Path) -> list[Unit]:
    return list(shard_units(path, Source(path, path.parent)))


def test_fewer_records_of_a_shard_are_read_at_once_if_they_are_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = repeated("texts", tmp_path / "a.parquet")
    found = units(path)
    assert len(found) == ROWS
    assert all(isinstance(unit.value, ShardRecord) and unit.value.fields["texts"] == [TEXT] for unit in found)
    monkeypatch.setattr(arrow_limits, "MAX_BATCH_BYTES", 2**15)
    (problem,) = units(path)
    assert problem.problem is not None
    assert "nothing after it was read: a row of 0 MiB, more than 0 MiB" in problem.problem


@pytest.mark.parametrize("compression", [None, "zstd", "lz4"])
@pytest.mark.parametrize("new", [pa.ipc.new_stream, pa.ipc.new_file])
@pytest.mark.parametrize("as_dictionary", [True, False])
def test_compressed_arrow_files_are_measured_before_they_are_read(
    compression: str | None, new: type, as_dictionary: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.arrow"
    texts = pa.array([str(k) + "x" * 1000 for k in range(100)])
    table = pa.table({"text": texts.dictionary_encode() if as_dictionary else texts})
    with pa.OSFile(str(path), "wb") as sink:
        options = pa.ipc.IpcWriteOptions(compression=compression)
        with new(sink, table.schema, options=options) as writer:
            writer.write_table(table)
    assert [unit.value.fields["text"] for unit in units(path)] == texts.to_pylist()
    monkeypatch.setattr(arrow_limits, "MAX_GROUP_BYTES", 2**16)
    found = units(path)
    if compression is None:
        assert len(found) == 100
    else:
        assert "batch 1: expected at most 0 MiB of values" in str(found[0].problem)


@pytest.mark.parametrize(
    ("values", "size"),
    [
        (pa.array(["ab", "ab", None]).dictionary_encode(), 4),
        (pa.array([["ab"], ["ab", "c"]], pa.list_(pa.dictionary(pa.int32(), pa.string())))[1:], 3),
        (pa.array([[("a", "bc")], [("d", "e")]], pa.map_(*[pa.dictionary(pa.int32(), pa.string())] * 2))[:1], 3),
        (pa.array([{"a": "b"}, {"a": "cd"}], pa.struct([("a", pa.dictionary(pa.int32(), pa.string()))]))[1:], 2),
        (pa.array(["a", "x" * 20, "b"]).cast(pa.string_view())[1:], 21),
        (pa.array([1, 2, 1], pa.int64()).dictionary_encode(), 3 * 16),
    ],
    ids=["texts", "list", "map", "struct", "views", "numbers"],
)
def test_size_of_decoded_values(values: pa.Array, size: int) -> None:
    assert decoded_bytes(values) == size


def test_values_that_may_be_stored_once_for_many_rows_are_refused() -> None:
    for values in (
        pa.RunEndEncodedArray.from_arrays(pa.array([3]), pa.array(["a"])),
        pa.ListViewArray.from_arrays([0, 0], [1, 1], pa.array(["a"])),
    ):
        with pytest.raises(ValueError, match="which is not supported"):
            decoded_bytes(values)
