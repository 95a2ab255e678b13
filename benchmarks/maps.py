"""Predictions over a large scene: what is found and where, memory, resumption, and speed against bare vLLM.

``python -m benchmarks.maps [--json OUT]`` (about 15 minutes). A drawn scene of 12,000 x 9,000 pixels in a rotated UTM
grid has 500 ships. Engines that know the answers must give every ship once, to a centimetre, in at most 2 GB; killed in
the middle, the same command must go on to the same file. The packaged policy then looks for 30 ships in a scene of
2,744 x 2,352 pixels, and its windows per second are compared with those of vLLM's own ``generate`` on the same crops.
"""

from __future__ import annotations

import multiprocessing
import resource
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio.raw
import shapely
from rasterio.crs import CRS
from rasterio.warp import transform

from benchmarks import bare_vllm
from benchmarks.common import Figure, at_least, at_most, pairs, parser, publish, ratio_figures
from benchmarks.scenery import TURNED, UTM, Box, place_ships, write_ships
from geovlm_ray.config import Config, load_config
from geovlm_ray.core.geometry import hbb, iou_hbb, match
from geovlm_ray.core.schema import Prompt, Sample, SampleGroup
from geovlm_ray.core.third_party_logs import silence_third_party_logs
from geovlm_ray.data.answer_format import AnswerFormat
from geovlm_ray.data.geo.scene import Georeference
from geovlm_ray.data.geo.windows import covering_windows
from geovlm_ray.evaluation.settings import evaluation_config
from geovlm_ray.model.answer_format import answer_format_of
from geovlm_ray.model.loading import model_folder
from geovlm_ray.rollout.engine import Engine
from geovlm_ray.serving.predict.answers import rendered_windows
from geovlm_ray.serving.predict.run import predict
from geovlm_ray.serving.predict.settings import PredictSettings
from geovlm_ray.training.local import StreamedRollouts, make_engine

SIZE, SMALL = (12_000, 9_000), (900, 700)
SHIPS, FEW = 500, 8
SIDE, OVERLAP = 448, 112
TINY_SIDE, TINY_OVERLAP = 112, 56
QUESTION = "find all ships ."
POLICY, POLICY_SHIPS = (2744, 2352), 30
"""The scene of the packaged policy: 1,968 windows."""


def main() -> int:
    """Draw, predict, measure and publish."""
    options = parser(__doc__ or "").parse_args()
    silence_third_party_logs()
    size, count = (SMALL, FEW) if options.smoke else (SIZE, SHIPS)
    with tempfile.TemporaryDirectory(prefix="geovlm-ray-bench-") as folder:
        scene = Path(folder) / "scene.tif"
        ships = place_ships(count, *size)
        write_ships(scene, *size, ships)
        figures = [
            *oracle_figures(scene, size, ships),
            *policy_figures(Path(folder), options.smoke),
        ]
    return publish("maps", figures, options, settings=[f"scene of {size[0]} x {size[1]} pixels", f"{count} ships"])


def predict_config(folder: Path) -> Config:
    """Configuration of engines with the packaged policy."""
    return evaluation_config(load_config("demo"), model_folder("tiny"), folder / "actors")


class Oracle:
    """Engines that answer every window with the visible parts of the ships; they die after some windows."""

    def __init__(self, size: tuple[int, int], ships: Sequence[Box], dies_after: int = 10**9) -> None:
        self.windows = list(covering_windows(*size, SIDE, OVERLAP))
        self.ships = np.array(ships)
        self.left = dies_after

    def submit(self, prompts: Sequence[Prompt], **sampling: Any) -> Any:
        """The groups of all prompts."""
        for prompt in prompts:
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
            text = f"<think>look</think><answer>{self._boxes(prompt)}</answer>"
            yield [SampleGroup(prompt, (Sample((1, 2), (-0.1, -0.2), text, "stop", 0),))]

    def _boxes(self, prompt: Prompt) -> str:
        window, frame = self.windows[prompt.group_id - 1], prompt.example.frame
        corner = np.array([window.left, window.top])
        low = np.maximum(self.ships[:, :2], corner) - corner
        high = np.minimum(self.ships[:, 2:], [window.right, window.bottom]) - corner
        shown = np.concatenate([low, high], axis=1)[((high - low) >= 2).all(axis=1)]
        scaled = shown * np.tile(np.array(frame.scale) / [window.width, window.height], 2)
        return ", ".join(f"[{', '.join(f'{v:.4f}' for v in row)}]" for row in scaled) or "none"

    def close(self) -> None:
        """Nothing to close."""


def oracle_figures(scene: Path, size: tuple[int, int], ships: Sequence[Box]) -> list[Figure]:
    """Places, memory and resumption with engines that know the answers."""
    out, again = scene.with_name("map.geojson"), scene.with_name("again") / "map.geojson"
    again.parent.mkdir()
    spawn = multiprocessing.get_context("spawn")
    with spawn.Pool(1) as pool:
        peak = pool.apply(_oracle_run, (scene, size, ships, out, 10**9))
    with spawn.Pool(1) as pool:
        pool.apply(_oracle_run, (scene, size, ships, again, 500))
    with spawn.Pool(1) as pool:
        pool.apply(_oracle_run, (scene, size, ships, again, 10**9))
    shapes = shapely.from_wkb(pyogrio.raw.read(out)[2])
    placed = shapely.transform(shapes, lambda xy: np.column_stack(transform("EPSG:4326", UTM, *xy.T)))
    found = np.array([shapely.get_coordinates(shape)[:4].mean(axis=0) for shape in placed])
    corners = np.array([[(x1, y1), (x2, y1), (x2, y2), (x1, y2)] for x1, y1, x2, y2 in ships], dtype=np.float64)
    place = Georeference(CRS.from_string(UTM), TURNED)
    centres = place.coordinates(corners.reshape(-1, 2)).reshape(-1, 4, 2).mean(axis=1)
    distances = np.linalg.norm(centres[:, None] - found[None], axis=2).min(axis=1)
    return [
        Figure("ships in the scene", len(ships)),
        at_least("ships found within a centimetre", float((distances < 0.01).sum()), len(ships)),
        at_most("features on the map", len(shapes), len(ships)),
        at_most("largest error of a centre, m", float(distances.max()), 0.01),
        at_most("peak memory, GB", peak / 1e6, 2),
        at_least("killed and resumed: the same file", float(out.read_bytes() == again.read_bytes()), 1),
    ]


def _oracle_run(scene: Path, size: tuple[int, int], ships: Sequence[Box], out: Path, dies_after: int) -> int:
    """Predict in this process; returns its peak memory in KB."""
    settings = PredictSettings("object_detection", QUESTION, SIDE, OVERLAP)
    engines = Oracle(size, ships, dies_after)
    with suppress(KeyboardInterrupt):
        predict([(str(scene),)], settings, predict_config(out.parent), lambda _: engines, out, lambda *_: None)  # type: ignore[arg-type,return-value]
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def policy_figures(folder: Path, smoke: bool) -> list[Figure]:
    """What the packaged policy finds in a smaller scene, and its speed against bare vLLM on the same windows."""
    size = SMALL if smoke else POLICY
    ships = place_ships(FEW if smoke else POLICY_SHIPS, *size)
    scene = folder / "policy.tif"
    write_ships(scene, *size, ships)
    config = predict_config(folder)
    engine = make_engine(config, Path(config.model.path))
    settings = PredictSettings("object_detection", QUESTION, TINY_SIDE, TINY_OVERLAP)
    out = scene.with_name("policy.geojson")
    (features,), _ = predict(
        [(str(scene),)], settings, config, lambda _: StreamedRollouts(engine), out, lambda *_: None
    )
    boxes = [feature.polygon.bounds for feature in features.features]
    iou = iou_hbb(hbb(ships), hbb(boxes))
    hits = int((iou[match(iou)] >= 0.5).sum())
    precision, recall = hits / max(1, len(boxes)), hits / len(ships)
    crops = list(rendered_windows([(str(scene),)], settings, answer_format_of_model(config), set(), folder))
    prompts = [Prompt(crop.number, crop.example) for crop in crops if crop.example]
    bare = partial(bare_vllm.generate, engine, prompts, group_size=1, greedy=True)
    again = partial(_predict, scene, settings, config, engine)
    bare_s, ours_s = pairs(bare, again, 1 if smoke else 3)
    return [
        Figure("packaged policy: features", len(boxes)),
        Figure("packaged policy: precision at IoU 0.5", precision),
        Figure("packaged policy: recall at IoU 0.5", recall),
        Figure("packaged policy: F1 at IoU 0.5", 2 * hits / (len(boxes) + len(ships))),
        Figure("windows/s", len(prompts) / sorted(ours_s)[len(ours_s) // 2]),
        *ratio_figures(
            "predict / bare vLLM, windows/s",
            bare_s,
            ours_s,
            partial(at_least, limit=0.9),
        ),
    ]


def answer_format_of_model(config: Config) -> AnswerFormat:
    """How the model of a configuration writes boxes."""
    return answer_format_of(config.data, config.prompt, Path(config.model.path))


def _predict(scene: Path, settings: PredictSettings, config: Config, engine: Engine) -> None:
    predict(
        [(str(scene),)],
        settings,
        config,
        lambda _: StreamedRollouts(engine),
        scene.with_suffix(".geojson"),
        lambda *_: None,
    )


if __name__ == "__main__":
    sys.exit(main())
