"""Where the real remote-sensing images and annotations lie; tests that use them skip where they are absent."""

from pathlib import Path

import pytest

RS = Path(__file__).resolve().parents[2] / "shared" / "rs"
needs_rs = pytest.mark.skipif(not RS.is_dir(), reason=f"the real images and annotations are absent: {RS.name}")
