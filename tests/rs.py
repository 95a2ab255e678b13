"""Folder of real remote-sensing images and annotations; tests that need them are skipped if it is missing."""

from pathlib import Path

import pytest

RS = Path(__file__).resolve().parents[2] / "shared" / "rs"
needs_rs = pytest.mark.skipif(not RS.is_dir(), reason=f"real images and annotations are missing: {RS.name}")
