"""Training curves as SVG."""

import io
from collections.abc import Sequence

import numpy as np

MAX_POINTS = 600  # per curve; longer curves are averaged in groups
COLOURS = ("#1f5fbf", "#c8471f", "#2b8a57", "#8c4fb0", "#b8860b", "#3d9bb3", "#a1365c", "#66707d")
FAINT = "#c6cfda"

Rows = Sequence[dict[str, float]]


def column(rows: Rows, x: str, y: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns keys x and y of the rows that have both, (n,) each, averaged in groups to at most `MAX_POINTS` points."""
    pairs = np.array([(row[x], row[y]) for row in rows if x in row and y in row], float).reshape(-1, 2)
    groups = np.array_split(pairs, MAX_POINTS) if len(pairs) > MAX_POINTS else [pairs]
    thin = np.stack([group.mean(0) for group in groups]) if len(groups) > 1 else pairs
    return thin[:, 0], thin[:, 1]


def smoothed(values: np.ndarray) -> np.ndarray:
    """Returns the running mean of values (n,) over each value and the n // 20 values before it."""
    width = 1 + len(values) // 20
    sums = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - width, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)


class Curves:
    """A line plot as SVG.

    Args:
        xlabel, ylabel: labels of the axes.
        size: width and height, in inches of 72 points.
    """

    def __init__(self, xlabel: str, ylabel: str, size: tuple[float, float] = (4.6, 2.7)):
        from matplotlib.figure import Figure

        self._figure = Figure(figsize=size)  # a layout engine would take longer than the drawing
        self._figure.subplots_adjust(left=0.135, right=0.985, top=0.96, bottom=0.175)
        self._axes = self._figure.add_subplot()
        self._axes.set_xlabel(xlabel, fontsize=9, color="#556070")
        self._axes.set_ylabel(ylabel, fontsize=9, color="#556070")
        self._axes.tick_params(labelsize=8, colors="#556070", length=0)
        self._axes.grid(color="#e8ebef", linewidth=0.8)
        self._axes.set_axisbelow(True)
        self._axes.spines[:].set_visible(False)
        self._lines: list[np.ndarray] = []
        self._labels = 0

    def add(
        self, x: np.ndarray, y: np.ndarray, colour: str, label: str = "", *, behind: np.ndarray | None = None
    ) -> None:
        """Adds a line; without points, does nothing.

        Args:
            x, y: (n,) coordinates.
            colour: colour of the line.
            label: entry in the legend, if any.
            behind: (n,) values before smoothing, drawn faintly behind the line.
        """
        if not len(x):
            return
        marker = "o" if len(x) == 1 else None
        if behind is not None:
            self._axes.plot(x, behind, color=colour, alpha=0.25, linewidth=0.8)
            self._lines.append(behind)
        self._axes.plot(x, y, color=colour, linewidth=1.6, label=label or None, marker=marker, markersize=4)
        self._lines.append(y)
        self._labels += bool(label)

    def svg(self, *, logarithmic: bool = False, zero: bool = False, legend_outside: bool = False) -> str:
        """Returns the plot as SVG text.

        Args:
            logarithmic: use a logarithmic y axis if all values are positive and span more than a factor of 3.
            zero: start the y axis at 0.
            legend_outside: draw the legend to the right of the plot instead of inside it.
        """
        import matplotlib
        from matplotlib.ticker import LogFormatterSciNotation, MaxNLocator

        values = np.concatenate(self._lines) if self._lines else np.ones(1)
        if zero:
            self._axes.set_ylim(0, 1.08 * max(values.max(), 1e-9))
        if logarithmic and (values > 0).all() and values.max() > 3 * values.min():
            self._axes.set_yscale("log")
            self._axes.yaxis.set_minor_formatter(LogFormatterSciNotation(minor_thresholds=(1, 0.4)))
            self._axes.tick_params(which="minor", labelsize=7, colors="#8a94a3", length=0)
        elif (np.abs(values) < 0.01).all() or (np.abs(values) >= 1e5).any():
            self._axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0), useMathText=True)
            self._axes.yaxis.get_offset_text().set(fontsize=8, color="#556070")
            self._figure.subplots_adjust(top=0.9)  # space for the power of ten above the axes
        self._axes.xaxis.set_major_locator(MaxNLocator(6))
        if self._labels:
            location = {"loc": "upper left", "bbox_to_anchor": (1, 1.02)} if legend_outside else {"loc": "upper right"}
            if legend_outside:
                self._figure.subplots_adjust(right=0.72)
            self._axes.legend(frameon=False, fontsize=8, labelcolor="#394250", handlelength=1.2, **location)
        buffer = io.StringIO()
        with matplotlib.rc_context({"svg.fonttype": "none", "font.family": "sans-serif", "svg.hashsalt": "ornstein"}):
            self._figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        return buffer.getvalue()


def colours_between(count: int) -> list[str]:
    """Returns `count` colours of the viridis map, from noise (dark violet) to data (light green)."""
    import matplotlib
    from matplotlib.colors import to_hex

    return [to_hex(matplotlib.colormaps["viridis"](0.92 * i / max(count - 1, 1))) for i in range(count)]
