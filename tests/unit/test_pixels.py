"""Conversion of bands of any dtype to RGB, by the pixel settings of a dataset."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from geovlm_ray.core.errors import DataError
from geovlm_ray.core.pixels import PixelSettings, to_rgb

DEFAULT = PixelSettings()
RNG = np.random.default_rng(0)
TYPES = ["u1", "i1", "u2", "i2", ">u2", "u4", "i4", "u8", "i8", "f2", "f4", "f8", "c8", "c16", "bool"]


def planes(*values: float, dtype: str = "u2") -> np.ndarray:
    """Bands of 20 x 50 pixels: a ramp from 0 to 999 plus the value of the band."""
    ramp = np.arange(1000).reshape(20, 50)
    return np.stack([ramp + v for v in values], axis=2).astype(dtype)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("bands", [1, 2, 3, 4, 12])
def test_every_number_type_and_band_count_becomes_rgb(dtype: str, bands: int) -> None:
    values = RNG.integers(0, 100, (20, 30, bands)).astype(dtype)
    rgb = to_rgb(values, DEFAULT)
    assert (rgb.shape, rgb.dtype) == ((20, 30, 3), np.uint8)
    assert rgb.std() > 10
    assert (bands >= 3) == bool((rgb[..., 0] != rgb[..., 1]).any())


@pytest.mark.parametrize("nodata", [None, 0, -9999, 0.5, float("nan"), 2.0**64, -1.7976931348623157e308])
@pytest.mark.parametrize("dtype", TYPES)
def test_any_nodata_value_is_accepted_for_any_dtype(dtype: str, nodata: float | None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert to_rgb(RNG.integers(1, 100, (5, 6, 3)).astype(dtype), PixelSettings(value_range=(0, 99)), nodata).any()


def test_each_band_is_stretched_by_its_own_percentiles() -> None:
    rgb = to_rgb(planes(0, 5000, 40_000), DEFAULT)
    low, high = np.percentile(np.arange(1000), (2, 98))
    expected = np.rint(((np.arange(1000) - low) / (high - low)).clip(0, 1) * 255).reshape(20, 50)
    assert all(np.array_equal(rgb[..., i], expected) for i in range(3))


def test_percentiles_and_range_are_settings() -> None:
    assert to_rgb(planes(0), PixelSettings(percentiles=(0, 100)))[0, 0, 0] == 0
    assert to_rgb(planes(0), PixelSettings(percentiles=(50, 100)))[10, 0, 0] == 0
    fixed = to_rgb(planes(0, 2000, 4000), PixelSettings(value_range=(0, 2000)))
    assert fixed[0, 49].tolist() == [round(49 / 2000 * 255), 255, 255]


def test_8_bit_is_unchanged_without_stretch_settings() -> None:
    values = RNG.integers(50, 60, (9, 9, 4)).astype(np.uint8)
    assert np.array_equal(to_rgb(values, DEFAULT), values[..., :3])
    assert np.array_equal(to_rgb(values, PixelSettings(bands=(4, 1, 2))), values[..., [3, 0, 1]])
    assert to_rgb(values, PixelSettings(percentiles=(0, 100))).max() == 255
    assert to_rgb(values, PixelSettings(value_range=(50, 59))).max() == 255


def test_bands_are_selected_by_number() -> None:
    values = planes(0, 100, 200, 300)
    fixed = (0.0, 2000.0)
    assert to_rgb(values, PixelSettings((4, 2, 1), value_range=fixed))[0, 0].tolist() == [38, 13, 0]
    assert to_rgb(values, PixelSettings((3,), value_range=fixed))[0, 0].tolist() == [26, 26, 26]
    with pytest.raises(DataError, match=r"among the image's 1 to 4, found 5"):
        to_rgb(values, PixelSettings((1, 2, 5)))
    with pytest.raises(DataError, match=r"among the image's 1 to 1, found 2"):
        to_rgb(planes(0), PixelSettings((2,)))


@pytest.mark.parametrize("dtype", ["u2", "i2", "i4", "f4"])
def test_nodata_is_black_and_excluded_from_percentiles(dtype: str) -> None:
    values = planes(1, 1, 1, dtype=dtype)
    expected = to_rgb(values[10:], DEFAULT)
    values[:10] = 30_000
    for settings, own in ((DEFAULT, 30_000), (PixelSettings(nodata=30_000), None), (PixelSettings(nodata=30_000), 5)):
        rgb = to_rgb(values, settings, own)
        assert not rgb[:10].any()
        assert np.array_equal(rgb[10:], expected)


def test_8_bit_pixel_is_nodata_only_if_all_bands_are() -> None:
    values = np.full((2, 2, 3), 200, np.uint8)
    values[0, 0], values[0, 1, 0] = 255, 255
    rgb = to_rgb(values, DEFAULT, 255)
    assert rgb[0, 0].tolist() == [0, 0, 0]
    assert rgb[0, 1].tolist() == [255, 200, 200]


def test_non_finite_values_are_black_and_do_not_affect_the_stretch() -> None:
    values = planes(0, dtype="f4")
    values[0, :3, 0] = np.nan, np.inf, -np.inf
    rgb = to_rgb(values, DEFAULT)
    assert not rgb[0, :3].any()
    assert rgb.std() > 50


@pytest.mark.parametrize("value", [0, 7, -3, 1e30])
def test_constant_bands_and_bands_without_values_are_black(value: float) -> None:
    assert not to_rgb(np.full((4, 5, 3), value, np.float32), DEFAULT).any()
    assert not to_rgb(np.full((4, 5, 3), value, np.float32), PixelSettings(nodata=value)).any()
    assert not to_rgb(np.full((4, 5, 1), np.nan), DEFAULT).any()


def test_outliers_of_a_nearly_constant_band_remain_visible() -> None:
    values = np.zeros((100, 100, 1), np.uint16)
    values[3, 4], values[5, 6] = 10, 20
    rgb = to_rgb(values, DEFAULT)
    assert rgb[3, 4, 0] == 128
    assert rgb[5, 6, 0] == 255


def test_complex_values_are_shown_by_magnitude() -> None:
    values = np.array([[3 + 4j, 0], [-5, 10j]], np.complex64)[..., None]
    assert to_rgb(values, PixelSettings(value_range=(0, 10)))[..., 0].tolist() == [[128, 0], [128, 255]]


@given(
    hnp.arrays(np.float32, (4, 5, 3), elements=st.floats(width=32, allow_nan=True, allow_infinity=True)),
    st.none() | st.floats(),
)
def test_any_floats_become_rgb_without_warnings(values: np.ndarray, nodata: float | None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rgb = to_rgb(values, DEFAULT, nodata)
    assert rgb.shape == (4, 5, 3)


@pytest.mark.parametrize(
    "wrong",
    [{"bands": (0,)}, {"bands": (1, 2)}, {"percentiles": (98, 2)}, {"percentiles": (0, 101)}, {"value_range": (3, 3)}],
)
def test_invalid_settings_are_rejected(wrong: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        PixelSettings(**wrong)
