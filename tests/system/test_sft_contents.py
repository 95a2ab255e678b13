"""Fine-tuning that is resumed on other data or weights than it was begun with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from geovlm_ray.config import load_config
from geovlm_ray.core.errors import ConfigError, DataError, RunError
from geovlm_ray.model.loading import model_folder
from geovlm_ray.training.sft import fine_tune
from tests.system.test_fine_tuning import QUIET
from tests.system.test_sft_bad_records import broken_image, logged_and_saved, user_records

pytestmark = pytest.mark.slow


def test_corrected_data_and_other_weights_are_refused_by_file_and_accepted_on_request(tmp_path: Path) -> None:
    model, out = shutil.copytree(model_folder("tiny"), tmp_path / "model"), tmp_path / "out"
    records = user_records(tmp_path, *({"images": [broken_image(tmp_path)]} if k == 3 else {} for k in range(6)))
    settings = (*records, f"model.path={model}", "sft.checkpoint_every=1", "data.check_images=0")
    with pytest.raises(DataError, match="record 'r3'"):
        fine_tune(load_config("demo", settings), out, QUIET)
    reached, _ = logged_and_saved(out)
    user_records(tmp_path, *[{}] * 6)
    (model / "chat_template.jinja").write_text((model / "chat_template.jinja").read_text() + "\n")
    message = (
        rf"output folder {out} was begun with other content: data {tmp_path}/data\.jsonl: expected xxh3:\w+, found "
        rf"xxh3:\w+; model {model}/chat_template\.jinja: .*; restore it, choose another --out, or continue with"
    )
    with pytest.raises(RunError, match=message):
        fine_tune(load_config("demo", settings), out, QUIET)
    with pytest.raises(ConfigError, match=r"sft\.steps was 6, is now 2"):
        fine_tune(load_config("demo", [*settings, "sft.steps=2"]), out, QUIET, accept_changes=True)
    (out / "bad_records.jsonl").unlink()
    fine_tune(load_config("demo", settings), out, QUIET, accept_changes=True)
    assert logged_and_saved(out)[0] == 6
    (change,) = json.loads((out / "contents.json").read_text())["changes"]
    assert (change["step"], list(change["differences"])) == (reached, ["data", "model"])
    assert change["differences"]["data"][0] in (out / "sft.html").read_text()
