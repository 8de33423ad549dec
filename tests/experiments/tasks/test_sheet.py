"""The contact sheet: each picture is at its place, enlarged and unchanged."""

import numpy as np
from PIL import Image

from experiments.plotting import sheet
from experiments.plotting.sheet import Column


def tiles(page, rows, columns, side):
    """Where pictures of plain colour lie: (row, column) of the colours, by the order in which they are met."""
    pixels = np.asarray(page)
    found = {}
    for row in range(rows):
        for column in range(columns):
            where = np.argwhere((pixels == (50 * row + 10, 40 * column + 20, 7)).all(-1))
            found[row, column] = (*where.min(0), *np.ptp(where, axis=0) + 1)
    assert all(place[2:] == (side, side) for place in found.values())
    return found


def plain(row, column, size):
    return np.full((size, size, 3), (50 * row + 10, 40 * column + 20, 7), np.uint8)


def test_rows_are_inputs_and_columns_kinds_of_one_size():
    """The second column's pictures are smaller."""
    sizes = (32, 16, 32)
    columns = [
        Column(f"kind {c}", np.stack([plain(r, c, size) for r in range(4)]), [f"{r}.5 dB" for r in range(4)])
        for c, size in enumerate(sizes)
    ]
    places = tiles(sheet.draw(columns, list("abcd")), 4, 3, 96)
    tops = [[places[r, c][0] for c in range(3)] for r in range(4)]
    lefts = [[places[r, c][1] for r in range(4)] for c in range(3)]
    assert all(len(set(row)) == 1 for row in tops) and all(len(set(column)) == 1 for column in lefts)
    assert min(np.diff([row[0] for row in tops])) >= 96 + sheet.LINE
    assert min(np.diff([column[0] for column in lefts])) >= 96


def test_long_names_and_many_inputs_leave_a_page_that_can_be_read():
    pictures = np.zeros((40, 8, 8, 1), np.uint8)
    page = sheet.draw([Column("a", pictures)], ["a name of very many words that goes on and on" * 3] * 40)
    few = sheet.draw([Column("a", pictures[:32])], ["short"] * 32)
    assert page.width < 400 and page.height == few.height + sheet.LINE


def test_a_picture_is_written_pixel_for_pixel(tmp_path):
    for channels in (1, 3):
        picture = np.random.default_rng(0).integers(0, 256, (5, 7, channels), dtype=np.uint8)
        sheet.save_picture(tmp_path / "a.png", picture)
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.png")).reshape(picture.shape), picture)


def test_spread_is_the_root_of_the_mean_square_of_the_channels():
    deviations = np.array([[[[0.0, 0.0, 0.0], [0.3, 0.3, 0.3], [0.6, 0.0, 0.0]]]])
    expected = [0, 0.3 / 0.5, np.sqrt(0.36 / 3) / 0.5]
    np.testing.assert_array_equal(sheet.spread(deviations, 0.5)[0, 0, :, 0], np.rint(255 * np.array(expected)))
