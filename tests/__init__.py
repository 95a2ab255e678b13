"""Tests of geovlm_ray; the assertions of shared modules explain their failures like those of test modules."""

import pytest

pytest.register_assert_rewrite("tests.system.ranks", "tests.system.golden", "tests.unit.comparison")
