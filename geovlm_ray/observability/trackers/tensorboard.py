"""TensorBoard events of a run, written at once: the threads of the usual writers print a traceback on a full disk."""

from __future__ import annotations

import html
import io
import os
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.summary.writer.record_writer import RecordWriter

from geovlm_ray.core.files import writing
from geovlm_ray.observability.trackers.base import COLUMNS, ShownCompletion


class TensorBoardTracker:
    """A new file of events in ``folder``; TensorBoard drops those of earlier files from step ``first_step`` on.

    Raises:
        DataError: the file cannot be written.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        self._path = folder / f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        with writing(self._path):
            folder.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("wb")
        self._records = RecordWriter(self._file)
        self._write(Event(file_version="brain.Event:2"))
        self._write(Event(step=first_step, session_log=SessionLog(status=SessionLog.START)))

    def log_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write the metrics of a step; raises DataError if that fails."""
        values = [Summary.Value(tag=name, simple_value=float(value)) for name, value in metrics.items()]
        self._write(Event(step=step, summary=Summary(value=values)))

    def log_completions(self, step: int, completions: Sequence[ShownCompletion]) -> None:
        """Write completions as a table in Markdown, and their pictures; raises DataError if that fails."""
        values = [
            Summary.Value(tag=f"completions/{c.name}", image=_encoded(c.picture)) for c in completions if c.picture
        ]
        table = Summary.Value(
            tag="completions/table",
            tensor=TensorProto(dtype=DT_STRING, string_val=[_table(completions).encode()]),
            metadata=SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text")),
        )
        self._write(Event(step=step, summary=Summary(value=[*values, table])))

    def close(self, failed: bool) -> None:
        """Close the file; what could not be written has been reported."""
        with suppress(OSError):
            self._file.close()

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        with writing(self._path):
            self._records.write(event.SerializeToString())
            self._records.flush()


def _encoded(picture: Image.Image) -> Summary.Image:
    sink = io.BytesIO()
    picture.save(sink, "PNG")
    return Summary.Image(height=picture.height, width=picture.width, colorspace=3, encoded_image_string=sink.getvalue())


def _table(completions: Sequence[ShownCompletion]) -> str:
    """A table in Markdown."""
    rows = [COLUMNS, ["---"] * len(COLUMNS), *([_cell(v) for v in c.values] for c in completions)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cell(value: object) -> str:
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    return html.escape(" ".join(text.split())).replace("|", "&#124;")
