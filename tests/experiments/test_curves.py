"""Curves: which axis a set of values gets, what is drawn of a line, and how long curves are thinned."""

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex

from experiments.plotting import curves

DEFAULT_LIMITS = matplotlib.rcParams["axes.formatter.limits"]


def drawn(*lines, **options):
    """The axes after `svg`, of lines (values, behind or None); the picture itself is not written."""
    plot = curves.Curves("step", "loss")
    plot._figure.savefig = lambda *arguments, **keywords: None
    for i, (values, behind) in enumerate(lines):
        behind = None if behind is None else np.asarray(behind, float)
        plot.add(np.arange(len(values)), np.asarray(values, float), curves.COLOURS[i], behind=behind)
    plot.svg(**options)
    return plot._figure.axes[0]


@pytest.mark.parametrize(
    "values, scale",
    [
        ([1, 3], "linear"),
        ([1, 3.01], "log"),
        ([1, 2, 100], "log"),
        ([0, 2, 100], "linear"),
        ([-1, 2, 100], "linear"),
        ([1e-9, 1e-8], "log"),
        ([2], "linear"),
    ],
)
def test_an_axis_is_logarithmic_for_positive_values_that_differ_by_more_than_3(values, scale):
    assert drawn((values, None), logarithmic=True).get_yscale() == scale
    assert drawn((values, None)).get_yscale() == "linear"


def test_what_lies_behind_a_line_decides_the_axis_too():
    assert drawn(([1, 2], [1, 4]), logarithmic=True).get_yscale() == "log"
    assert drawn(([1, 4], [0, 4]), logarithmic=True).get_yscale() == "linear"
    assert drawn(([1, 2], None), ([5, 6], None), logarithmic=True).get_yscale() == "log"
    assert drawn(([1, 2], [1, 8]), zero=True).get_ylim() == (0, pytest.approx(1.08 * 8))


@pytest.mark.parametrize("values, top", [([3, 5, 4], 5.4), ([0, 0], 1.08e-9), ([0.5], 0.54)])
def test_an_axis_from_zero_leaves_a_little_room_above(values, top):
    assert drawn((values, None), zero=True).get_ylim() == (0, pytest.approx(top))
    assert drawn((values, None)).get_ylim() != (0, pytest.approx(top))


@pytest.mark.parametrize(
    "values, powers",
    [
        ([0.009, 0.001], True),
        ([-0.009, 0.0], True),
        ([0.01, 0.001], False),
        ([5, 99_999], False),
        ([5, 100_000], True),
        ([5, -200_000], True),
    ],
)
def test_small_and_large_values_share_a_power_of_ten(values, powers):
    formatter = drawn((values, None)).yaxis.get_major_formatter()
    assert tuple(formatter._powerlimits) == ((0, 0) if powers else tuple(DEFAULT_LIMITS))


def test_a_power_of_ten_is_within_the_picture():
    axes = drawn(([0.001, 0.002], None))
    FigureCanvasAgg(axes.figure).draw()
    text = axes.yaxis.get_offset_text()
    box, picture = text.get_window_extent(), axes.figure.bbox
    assert "10" in text.get_text() and box.y1 <= picture.y1 and box.x0 >= picture.x0


def test_a_logarithmic_axis_names_its_powers_itself():
    assert "LogFormatter" in type(drawn(([1, 1e6], None), logarithmic=True).yaxis.get_major_formatter()).__name__


def test_a_single_point_is_a_dot_and_no_point_is_nothing():
    single, several = drawn(([2], None)), drawn(([2, 3], [1, 4]))
    assert [line.get_marker() for line in single.lines] == ["o"]
    assert [line.get_marker() for line in several.lines] == ["None", "None"]
    assert drawn(([], None), ([], [])).lines[:] == []


def test_a_smoothed_line_lies_over_its_faint_values_in_the_same_colour():
    behind, line = drawn(([2, 3], [1, 4])).lines
    np.testing.assert_array_equal(behind.get_ydata(), [1, 4])
    np.testing.assert_array_equal(line.get_ydata(), [2, 3])
    assert behind.get_color() == line.get_color() == curves.COLOURS[0]
    assert behind.get_alpha() == 0.25 and line.get_alpha() is None
    assert behind.get_linewidth() < line.get_linewidth()


@pytest.mark.parametrize("outside", [False, True])
def test_names_of_lines_stand_in_the_plot_or_beside_it(outside):
    plot = curves.Curves("step", "loss")
    plot.add(np.arange(3), np.arange(3.0), curves.COLOURS[0])
    plot.svg(legend_outside=outside)
    assert plot._figure.axes[0].get_legend() is None
    plot.add(np.arange(3), np.arange(3.0), curves.COLOURS[1], "a name")
    picture = plot.svg(legend_outside=outside)
    axes = plot._figure.axes[0]
    legend, right = axes.get_legend(), axes.get_position().x1
    assert [text.get_text() for text in legend.get_texts()] == ["a name"] and "a name" in picture
    left = legend.get_window_extent().x0 / plot._figure.bbox.width
    assert (left >= right) == outside and right == pytest.approx(0.72 if outside else 0.985)


def test_a_picture_has_its_axes_names_and_is_the_same_each_time():
    def picture():
        plot = curves.Curves("seconds of training", "images per second", size=(4.0, 3.0))
        plot.add(np.arange(4), np.arange(4.0), curves.COLOURS[0])
        return plot.svg(zero=True)

    assert picture() == picture()
    assert all(
        name in picture() for name in (">seconds of training<", ">images per second<", 'width="288pt" height="216pt"')
    )


@pytest.mark.parametrize("count", [1, 2, 10])
def test_colours_go_evenly_from_noise_to_data(count):
    """Of the viridis map, without its yellow end."""
    places = [0.0] if count == 1 else np.linspace(0, 0.92, count)
    assert curves.colours_between(count) == [to_hex(matplotlib.colormaps["viridis"](place)) for place in places]


@pytest.mark.parametrize("count", [1, 599, 600, 601, 1250])
def test_curves_of_up_to_600_points_are_whole(count):
    rows = [{"step": step, "loss": float(step**2)} for step in range(count)]
    steps, losses = curves.column(rows, "step", "loss")
    assert len(steps) == len(losses) == min(count, 600)
    if count <= 600:
        np.testing.assert_array_equal(losses, np.arange(count) ** 2)
    else:
        groups = np.array_split(np.arange(count), 600)
        np.testing.assert_allclose(losses, [np.mean(group**2) for group in groups])
        np.testing.assert_allclose(steps, [group.mean() for group in groups])


@pytest.mark.parametrize("count, width", [(19, 1), (20, 2), (39, 2), (40, 3), (200, 11)])
def test_a_twentieth_of_the_values_is_averaged(count, width):
    values = np.random.default_rng(0).normal(size=count)
    expected = [values[max(0, i + 1 - width) : i + 1].mean() for i in range(count)]
    np.testing.assert_allclose(curves.smoothed(values), expected, atol=1e-12)
