"""Improved precision and recall on point sets whose answer can be worked out by hand."""

import tracemalloc

import numpy as np
import pytest

from experiments.metrics import neighbours, precision_and_recall


def line(*positions):
    return np.array(positions, float)[:, None]


# The third-nearest neighbours of these points are 6, 5, 3, 5 and 9 away, so the balls cover [-6, 19] together;
# with the second-nearest it would be [-3, 17], with the fourth-nearest [-10, 20].
REFERENCE = line(0, 1, 3, 6, 10)


def test_the_region_reaches_to_the_third_nearest_neighbour():
    samples = line(-6.1, -5.9, 0.5, 18.9, 19.1)
    assert precision_and_recall(samples, REFERENCE)[0] == 3 / 5
    assert precision_and_recall(REFERENCE, samples)[1] == 3 / 5, "recall is precision with the roles exchanged"


def test_the_border_belongs_to_the_region():
    assert precision_and_recall(line(-6, 19, -7, 20), REFERENCE)[0] == 1 / 2


def test_samples_of_one_mode_are_precise_and_cover_little():
    """The samples' balls cover [-0.3, 0.6], so of the reference the point at 0."""
    assert precision_and_recall(line(0, 0.1, 0.2, 0.3), REFERENCE) == (1.0, 1 / 5)


def test_scattered_samples_cover_all_and_are_imprecise():
    assert precision_and_recall(line(-100, -50, 3, 50, 100), REFERENCE) == (1 / 5, 1.0)


def test_sets_far_apart():
    assert precision_and_recall(REFERENCE + 1000, REFERENCE) == (0.0, 0.0)


def test_a_set_has_precision_and_recall_one_against_itself():
    """Also where copies shrink a ball to a point: rounding must not put a point outside its own."""
    points = np.random.default_rng(0).normal(size=(50, 64)) * 1e3 + 1e4
    repeated = np.repeat(points, 5, axis=0)
    assert precision_and_recall(points, points) == (1.0, 1.0)
    assert precision_and_recall(repeated, repeated[::-1]) == (1.0, 1.0)


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_blocks_do_not_matter(block, monkeypatch):
    """Against the definition on full matrices."""
    rng = np.random.default_rng(0)
    features, reference = rng.normal(size=(40, 2)) + 0.5, rng.normal(size=(30, 2))

    def fraction_inside(points, centres):
        between = np.linalg.norm(centres[:, None] - centres[None], axis=-1)
        radii = np.sort(between, axis=1)[:, 3]
        return np.mean([any(np.linalg.norm(p - c) <= r for c, r in zip(centres, radii, strict=True)) for p in points])

    monkeypatch.setattr(neighbours, "BLOCK", block * 30)
    expected = fraction_inside(features, reference), fraction_inside(reference, features)
    assert precision_and_recall(features, reference) == pytest.approx(expected)
    assert 0 < expected[0] < 1 and 0 < expected[1] < 1


def test_memory_stays_below_that_of_a_distance_matrix():
    points = np.random.default_rng(0).normal(size=(5000, 2))
    tracemalloc.start()
    precision_and_recall(points, points)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.6 * points.shape[0] ** 2 * 8
