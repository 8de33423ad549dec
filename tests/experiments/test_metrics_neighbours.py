"""Neighbours, balls and copies: answers worked out by hand, and borders that rounding must not move."""

import tracemalloc

import numpy as np
import pytest

from experiments.metrics import density_and_coverage, memorisation, neighbours
from experiments.metrics.neighbours import nearest, together, within


def line(*positions):
    return np.array(positions, float)[:, None]


def test_nearest_against_the_definition(monkeypatch):
    """In blocks of a single row, too."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(20, 3)), rng.normal(size=(30, 3))
    full = np.square(a[:, None] - b).sum(-1)
    for block in (1, 200, 10**6):
        monkeypatch.setattr(neighbours, "BLOCK", block)
        distances, numbers = nearest(*together(a, b), 4)
        np.testing.assert_array_equal(numbers, np.argsort(full, axis=1)[:, :4])
        np.testing.assert_allclose(distances, np.sort(full, axis=1)[:, :4], rtol=1e-12)


def test_more_ties_than_candidates():
    """Nine copies of each point, which inner products tell apart by rounding."""
    points = np.repeat(np.random.default_rng(0).normal(size=(10, 64)) * 1e3, 9, axis=0)
    (all_points,) = together(points)
    distances, _ = nearest(all_points, all_points, 9)
    np.testing.assert_array_equal(distances, 0)


def test_neighbours_closer_than_the_rounding_of_inner_products():
    """Points 1e-9 apart, some 20 from the origin, which one far away moves: |u|^2 + |v|^2 - 2 u v cannot see 1e-18."""
    rng = np.random.default_rng(0)
    steps = np.concatenate([rng.permutation(50) + 1.0, [1e12]])[:, None] * 1e-9
    points = np.concatenate([[[0.0] * 8], steps * np.eye(8)[0]])
    _, numbers = nearest(*together(points[:1], points[1:]), 3)
    np.testing.assert_array_equal(numbers[0], np.argsort(steps[:, 0])[:3])


@pytest.mark.parametrize("block", [3, 10**6])
def test_borders_belong_to_balls_and_the_next_number_does_not(block, monkeypatch):
    """Radii are the very distances, then those a rounding smaller: all pairs are on the border."""
    monkeypatch.setattr(neighbours, "BLOCK", block)
    rng = np.random.default_rng(0)
    a = rng.normal(size=(12, 64))
    rows, columns = together(a, rng.normal(size=(12, 64)))
    on = np.square(rows.points - columns.points).sum(-1)  # of row i and column i
    for radii, expected in ((on, True), (np.nextafter(on, 0), False)):
        for block_rows, (by_row,), (by_column,) in within(rows, columns, [radii], [radii]):
            places = np.arange(12)[block_rows]
            assert (by_row[np.arange(len(places)), places] == expected).all()
            assert (by_column[np.arange(len(places)), places] == expected).all()


def tight_clusters(size):
    """Two clusters of the given size at a distance of 2,000 in 64 dimensions, in which inner products see nothing."""
    rng = np.random.default_rng(0)
    centres = np.repeat(1e3 * np.array([1.0, -1.0]), 30)[:, None] * rng.choice([-1.0, 1.0], 64) / 8
    return centres + size * rng.normal(size=(60, 64))


@pytest.mark.parametrize("size", [1e-8, 1e-7, 1e-6, 1e-5])
def test_neighbours_and_balls_in_tight_clusters_far_from_the_origin(size):
    """A squared distance within a cluster is below, at or a little above the rounding of 1e6."""
    rows, columns = together(tight_clusters(size)[::2], tight_clusters(size)[1::2])
    full = np.square(rows.points[:, None] - columns.points).sum(-1)
    distances, numbers = nearest(rows, columns, 3)
    np.testing.assert_array_equal(distances, np.sort(full, axis=1)[:, :3])
    np.testing.assert_array_equal(numbers, np.argsort(full, axis=1)[:, :3])
    of_rows, of_columns = np.sort(full, axis=1)[:, 4], np.sort(full, axis=0)[4]
    for block, (by_row,), (by_column,) in within(rows, columns, [of_rows], [of_columns]):
        np.testing.assert_array_equal(by_row, full[block] <= of_rows[block, None])
        np.testing.assert_array_equal(by_column, full[block] <= of_columns)


@pytest.mark.parametrize("radii", [(1e-12, 1e3), (1e3, 1e-12)], ids=["rows near", "columns near"])
def test_neighbours_and_balls_of_points_at_almost_one_distance(radii):
    """A few points near the origin, many far from it: the rounding is that of the longer of the two."""
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(2, 40, 64))
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    rows, columns = (neighbours.Points(r * d, np.zeros(64)) for r, d in zip(radii, directions, strict=True))
    full = np.square(rows.points[:, None] - columns.points).sum(-1)
    distances, _ = nearest(rows, columns, 3)
    np.testing.assert_array_equal(distances, np.sort(full, axis=1)[:, :3])
    of_rows, of_columns = np.sort(full, axis=1)[:, 20], np.sort(full, axis=0)[20]
    for block, (by_row,), (by_column,) in within(rows, columns, [of_rows], [of_columns]):
        np.testing.assert_array_equal(by_row, full[block] <= of_rows[block, None])
        np.testing.assert_array_equal(by_column, full[block] <= of_columns)


# The fifth-nearest neighbours of these points are 15, 14, 12, 9, 10 and 15 away.
REFERENCE = line(0, 1, 3, 6, 10, 15)


def test_density_counts_balls_and_coverage_filled_ones():
    """The sample at -14 lies in the balls of 0 only ([-15, 15]); those of 0 and of 15 ([0, 30]) hold 25 and -14."""
    assert density_and_coverage(line(-14, 25, 40, 50), REFERENCE) == (pytest.approx(2 / 5 / 4), pytest.approx(2 / 6))
    assert density_and_coverage(line(5, 5, 5, 5), REFERENCE) == (pytest.approx(6 / 5), 1.0)


def test_of_a_reference_of_five_the_fourth_neighbour_counts():
    """0, 1, 3, 6 and 10 have theirs 10, 9, 7, 6 and 10 away: -9 lies in one ball of four, 7.5 in four, 100 in none."""
    five = line(0, 1, 3, 6, 10)
    expected = ((1 + 5 + 0) / 4 / 3, 1.0)
    assert density_and_coverage(line(-9, 7.5, 100, 101)[:3].repeat(2, 0), five) == pytest.approx(expected)
    assert density_and_coverage(line(*[-9] * 4), five) == (pytest.approx(1 / 4), 1 / 5)


def test_coverage_does_not_ask_for_the_samples_spread():
    assert density_and_coverage(REFERENCE + 1000, REFERENCE) == (0.0, 0.0)


TRAIN = line(0, 10, 11, 30)


def test_copies_and_authenticity():
    """0.5 is close to 0 alone; 10.5 has two neighbours alike; 19 is far from 11, which has a neighbour at 1."""
    found = memorisation(line(0.5, 10.5, 19, 33), TRAIN, line(5, 20))
    np.testing.assert_array_equal(found.distance, [0.5, 0.5, 8, 3])
    np.testing.assert_array_equal(found.nearest[[0, 2, 3]], [0, 2, 3])
    np.testing.assert_array_equal(found.copies, [True, False, False, True])  # 0.5 / 9.5, 1, 8 / 9, 3 / 22
    np.testing.assert_array_equal(found.authenticity, [False, False, True, False])  # 0.5 < 10, < 1, 8 > 1, 3 < 19


def test_held_out_images_say_how_near_is_near():
    """They are 5 and 9 from the training images; 5 is a tie with one of them, which counts half."""
    found = memorisation(line(0.5, 5, 19, 50), TRAIN, line(5, 20))
    np.testing.assert_array_equal(found.distance, [0.5, 5, 8, 20])
    np.testing.assert_array_equal(found.nearer_than_held_out, [1, 0.75, 0.5, 0])


def test_a_third_of_the_distance_is_no_copy():
    assert not memorisation(line(2.5), line(0, 10), line(5)).copies[0]  # 2.5 / 7.5 = 1 / 3
    assert memorisation(line(2.499), line(0, 10), line(5)).copies[0]


def test_copies_of_an_image_that_is_twice_in_the_training_set():
    """Its second neighbour is at no distance either, so the ratio says nothing; authenticity sees no copy, by definition."""
    found = memorisation(line(10), line(0, 10, 10, 20), line(5))
    assert (found.distance, found.copies, found.authenticity) == (0, False, False)


def test_held_out_images_of_the_same_kind_are_not_memorised():
    rng = np.random.default_rng(0)
    train, held_out, fresh = (rng.normal(size=(400, 4)) for _ in range(3))
    found = memorisation(fresh, train, held_out)
    assert found.nearer_than_held_out.mean() == pytest.approx(0.5, abs=0.06)
    copied = memorisation(train + 1e-3 * fresh, train, held_out)
    assert copied.nearer_than_held_out.mean() > 0.99 and copied.copies.mean() > 0.99
    assert copied.authenticity.mean() < 0.01


def test_memory_does_not_grow_with_the_square():
    points = np.random.default_rng(0).normal(size=(8000, 2))
    tracemalloc.start()
    density_and_coverage(points[:3000], points)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.4 * len(points) ** 2 * 8
