import numpy as np
import pytest

from il_bench.stress import images
from il_bench.stress.arms import ARMS

PLACES = np.array([[0.0, 0.0], [0.999, 0.5]])


@pytest.fixture
def given() -> np.ndarray:
    return np.random.default_rng(0).random((2, 3, 96, 96), np.float32)


@pytest.mark.parametrize("name", ["darker", "blur", "shift", "occlusion"])
def test_images_stay_images_and_the_input_stays_as_it_was(given: np.ndarray, name: str) -> None:
    before = given.copy()
    for level in ARMS[name].levels:
        make = ARMS[name].worlds
        assert make is not None
        found = make.keywords["change"](given, level, PLACES)  # type: ignore[attr-defined]
        assert (found.shape, found.dtype) == (given.shape, np.float32)
        assert found.min() >= 0 and found.max() <= 1
        assert (found != given).any()
    assert (given == before).all()


def test_darker(given: np.ndarray) -> None:
    np.testing.assert_allclose(images.darker(given, 0.4, PLACES), 0.6 * given, rtol=1e-6)


def test_blurred_spreads_one_pixel_over_its_neighbours_and_no_other_image_or_channel() -> None:
    one = np.zeros((2, 3, 21, 21), np.float32)
    one[1, 2, 10, 10] = 1
    found = images.blurred(one, 1, PLACES)
    assert found.sum() == pytest.approx(1, abs=1e-4)
    assert found[1, 2, 10, 10] == pytest.approx(1 / (2 * np.pi), rel=0.02)
    assert found[0].max() == found[1, :2].max() == 0


def test_shifted_moves_the_scene_right_and_down(given: np.ndarray) -> None:
    found = images.shifted(given, 4, PLACES)
    assert (found[:, :, 4:, 4:] == given[:, :, :-4, :-4]).all()
    assert (found[:, :, :4, 4:] == given[:, :, :1, :-4]).all()  # the edge is repeated


def test_occluded_has_a_square_at_each_images_own_place(given: np.ndarray) -> None:
    found = images.occluded(given, 24, PLACES)
    changed = (found != given).any(axis=1)
    assert changed[0, :24, :24].all() and changed[0].sum() == 24 * 24
    assert changed[1, 72:, 36:60].all() and changed[1].sum() == 24 * 24
