"""What the pages say of an evaluation: every figure of a file written by hand, each another number, at its own place."""

import base64
import html
import re

import numpy as np
import pytest
from PIL import Image

from experiments.files import strict_json
from experiments.plotting import curves, page
from experiments.reports import compare, report
from tests.experiments.test_report import make_run, rows, text_of


def rounded(values):
    return [round(float(value), 9) for value in values]


class Plot:
    """Stands for `Curves`: keeps what is drawn and how, and gives no picture."""

    def __init__(self, xlabel, ylabel):
        self.labels, self.lines, self.axis = (xlabel, ylabel), [], None

    def add(self, x, y, colour, label="", *, behind=None):
        if len(x):
            self.lines.append((list(x), rounded(y), colour, label, None if behind is None else rounded(behind)))

    def svg(self, **axis):
        self.axis = axis
        return "<svg/>"


@pytest.fixture(autouse=True)
def plots(monkeypatch):
    """The plots that are made."""
    made = []
    monkeypatch.setattr(curves, "Curves", lambda *labels: made.append(Plot(*labels)) or made[-1])
    return made


FIGURES = {"frechet_distance": (1.25, 0.125), "precision": (0.875, 0.75), "recall": (0.5, 0.625)}
COPIES = {"nearer_than_held_out": (0.511, 0.522), "copies": (0.033, 0.044), "authenticity": (0.855, 0.866)}


def intervals(figures, place, width):
    return {key: [pair[place] - width, pair[place] + width] for key, pair in figures.items()}


def counts(figures, first):
    return {key: first + i for i, key in enumerate(figures)}


def measured(**changes):
    """A metrics.json with all parts."""
    levels = [(80.0, -8.75, 0.011, 0.012), (1.0, 0.0, 0.021, 0.022), (0.002, 12.5, 0.0312, 0.0323)]
    found = {
        "step": 40,
        "sampling": {"sampler": "heun", "steps": 18, "evaluations": 35, "num_samples": 5000, "seed": 3},
        "feature_network": "perceptron",
        "features": "64 features <of a perceptron>",
        "reference": "898 held-out images",
        "samples": {key: pair[0] for key, pair in FIGURES.items()},
        "real": {"images": "899 training images"} | {key: pair[1] for key, pair in FIGURES.items()},
        "intervals": {"samples": intervals(FIGURES, 0, 0.0625), "real": intervals(FIGURES, 1, 0.03)},
        "counts": {"samples": counts(FIGURES, 1234), "real": counts(FIGURES, 2345)},
        "memorisation": {
            "training_images": 60_000,
            "samples": {key: pair[0] for key, pair in COPIES.items()},
            "held_out": {key: pair[1] for key, pair in COPIES.items()},
            "intervals": {"samples": intervals(COPIES, 0, 0.01), "held_out": intervals(COPIES, 1, 0.02)},
            "counts": {"samples": counts(COPIES, 3456), "held_out": counts(COPIES, 4567)},
        },
        "bits_per_dim": {
            "value": 3.125, "standard_error": 0.0625, "interval": [3.0025, 3.2475], "images": 1024, "t_min": 1e-5,
        },
        "held_out_loss": [{"noise_to_signal": s, "log_snr": r, "loss": a} for s, r, a, _ in levels],
        "training_loss": [{"noise_to_signal": s, "log_snr": r, "loss": b} for s, r, _, b in levels],
    }  # fmt: skip
    return found | changes


def tables(text):
    """The rows of each table of a page, cells as text."""
    found = []
    for table in re.findall("<table>(.*?)</table>", text, re.DOTALL):
        of_rows = re.findall("<tr>(.*?)</tr>", table, re.DOTALL)
        cells = [re.findall("<t[dh]>(.*?)</t[dh]>", row, re.DOTALL) for row in of_rows]
        found.append([[html.unescape(re.sub("<[^>]+>", "", cell)) for cell in row] for row in cells])
    return found


def written(path, figures, *, step=40, files=("step_00000040.png",), **changes):
    workdir = make_run(path, rows(step), grids=[report.step_of(path / name) for name in files])
    strict_json.write(workdir.metrics, figures)
    if changes:
        strict_json.write(workdir.data, changes)
    report.write(workdir)
    return workdir.report.read_text()


def test_every_figure_of_the_evaluation_is_in_its_cell(tmp_path):
    text = written(tmp_path / "run", measured())
    figures, copies, levels = tables(text)
    assert figures == [
        ["", "samples", "95 % interval", "of", "real images"],
        ["Frechet distance (less is better)", "1.250", "1.188 to 1.312", "1,234", "0.125"],
        ["precision (samples that look real)", "0.875", "0.812 to 0.938", "1,235", "0.750"],
        ["recall (real images that are covered)", "0.500", "0.438 to 0.562", "1,236", "0.625"],
    ]
    assert copies[0] == ["Copies", "samples", "95 % interval", "of", "held-out images"]
    assert [row[1:] for row in copies[1:]] == [
        ["0.511", "0.501 to 0.521", "3,456", "0.522"],
        ["0.033", "0.023 to 0.043", "3,457", "0.044"],
        ["0.855", "0.845 to 0.865", "3,458", "0.866"],
    ]
    assert levels == [
        ["sigma / alpha", "log-SNR", "held-out images", "training images"],
        ["80", "-8.75", "0.011", "0.012"],
        ["1", "0.00", "0.021", "0.022"],
        ["0.002", "12.50", "0.0312", "0.0323"],
    ]
    said = html.unescape(text_of(text))
    for sentence in (
        "Samples by heun, 18 steps, 35 evaluations of the network.",
        "5,000 samples, and 899 training images, each against 898 held-out images. Features: 64 features <of a perceptron>",
        "Nearest of 60,000 training images, in the same features.",
        "Bits per dimension of 1,024 held-out images, at most: 3.125 (standard error 0.062; 95 % 3.002 to 3.248; ",
        "t_min 1e-05).",
        "Trained, 40 steps; batch 16.",
    ):  # fmt: skip
        assert sentence in said, sentence


def test_a_method_that_chooses_its_evaluations_has_its_own_number(tmp_path):
    sampling = measured()["sampling"] | {"evaluations": None, "sampler": "adaptive"}
    said = text_of(written(tmp_path / "run", measured(sampling=sampling)))
    assert "Samples by adaptive, 18 steps, its own number of evaluations of the network." in said


def test_figures_are_named_after_the_network_of_the_features(tmp_path):
    samples = {"fid": 2.5, "recall": 0.5, "frechet_distance": 9.0}
    figures = measured(feature_network="inception", samples=samples, intervals={}, counts={}, real={"images": "none"})
    found = tables(written(tmp_path / "run", figures))[0][1:]
    assert [row[:2] for row in found] == [
        ["FID (less is better)", "2.500"],
        ["recall (real images that are covered)", "0.500"],
    ]
    assert all(row[2:] == ["", "", ""] for row in found)


def test_a_page_can_be_made_before_the_picture_of_noise_is(tmp_path):
    """As after a kill between the figures and the picture."""
    workdir = make_run(tmp_path / "run", rows(40))
    strict_json.write(workdir.metrics, measured())
    report.write(workdir)
    assert "Noise becoming images" not in workdir.report.read_text()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(workdir.strip)
    report.write(workdir)
    said = text_of(workdir.report.read_text())
    assert "Noise becoming images Each row is one sample, from the prior to the data." in said


@pytest.mark.parametrize("step, when", [(36, ", at step 36"), (40, ""), (44, "")])
def test_figures_of_an_earlier_step_say_it(tmp_path, step, when):
    said = text_of(written(tmp_path / "run", measured(step=step), step=40))
    assert ("How good they are, at step" in said) == bool(when) and f"How good they are{when} " in said


def test_the_best_checkpoint_stands_among_all(tmp_path):
    kept = [{"step": 32_000, "recall": 0.4375, "precision": 1}, {"step": 40_000, "recall": 0.5, "precision": 0}]
    text = written(tmp_path / "run", measured(checkpoints=kept, chosen_by="recall", step=40_000))
    assert tables(text)[2] == [["Checkpoint", "recall"], ["step 32,000", "0.438"], ["step 40,000", "0.500"]]
    assert "The figures are those of step 40,000, the best of these by recall." in text_of(text)


def test_the_printed_summary_has_the_same_figures():
    assert [line.split("  ") for line in report.summary(measured()).splitlines()[4:]] == [
        [f"{title}: {COPIES[key][0]:.3f} of samples, {COPIES[key][1]:.3f} of held-out images"]
        for key, (title, _) in report.metric_names.MEMORISATION.items()
    ] + [["bits per dimension: 3.125 +- 0.062 (1,024 images)"]]


def stored(num_classes, names=None):
    splits = {"train": 1000, "validation": 20, "test": 3000}
    counts = {split: [first + number for number in range(num_classes)] for split, first in splits.items()}
    found = {"summary": "1,797 images", "warnings": ["one & only"], "num_classes": num_classes, "class_names": names}
    return found | {"class_counts": counts if num_classes else {}}


def test_images_by_class_are_those_of_the_data(tmp_path):
    text = written(tmp_path / "run", measured(), **stored(2, ["cat", "dog"]))
    header, *found = tables(text)[-1]
    assert header == ["class", "training images", "validation images", "test images"]
    assert [row[1:] for row in found] == [["1,000", "20", "3,000"], ["1,001", "21", "3,001"]]
    assert "cat" in found[0][0] and "dog" in found[1][0]
    assert "1,797 images" in text_of(text) and "Warning: one &amp; only" in text


@pytest.mark.parametrize("num_classes, shown", [(0, False), (1, True), (100, True), (101, False)])
def test_up_to_a_hundred_classes_are_counted(tmp_path, num_classes, shown):
    found = tables(written(tmp_path / "run", measured(), **stored(num_classes)))
    assert (found[-1][0][0] == "class") == shown
    assert not shown or len(found[-1]) == num_classes + 1


@pytest.mark.parametrize(
    "steps, shown",
    [([4], [4]), ([4, 8, 12, 16], [4, 8, 12, 16]), ([4, 8, 12, 16, 20], [4, 8, 16, 20]), (range(4, 44, 4), [4, 16, 28, 40])],
)  # fmt: skip
def test_four_grids_are_spread_over_all_from_the_first_to_the_last(tmp_path, steps, shown):
    text = written(tmp_path / "run", measured(), files=[f"step_{step:08d}.png" for step in steps])
    assert re.findall(r"<figcaption>step (\d+)</figcaption>", text) == [str(step) for step in shown]


def test_each_figure_of_training_is_told_and_drawn(tmp_path, plots):
    """The last row's, and a curve of each over the steps: what is a share is drawn in per cent."""
    more = [
        row | {"images_per_second": 12_345.6, "data_fraction": 0.125, "memory_peak_mib": 2048.4} | {
            "param_norm": 7.0 + row["step"], "learning_rate": 1e-3 / row["step"], "grad_norm": 0.5 * row["step"],
        }
        for row in rows(20)
    ]  # fmt: skip
    workdir = make_run(tmp_path / "run", more)
    report.write(workdir)
    text = workdir.report.read_text()
    facts = dict((name, value) for value, name in re.findall("<div><b>(.*?)</b><span>(.*?)</span></div>", text))
    assert facts == {
        "loss": "0.0500", "images per second": "12,346", "of the peak (MFU)": "25.0%", "of the time for data": "12.5%",
        "MiB of memory at most": "2,048", "of training": "0 min 40 s", "to go, about": "0 min 40 s",
    }  # fmt: skip
    steps, blue = [4, 8, 12, 16, 20], curves.COLOURS[0]
    expected = [
        ("Loss", "loss", "loss", 1, True, {"logarithmic": True}),
        ("Gradient norm, before clipping", "norm", "grad_norm", 1, True, {"logarithmic": True}),
        ("Weight norm", "norm", "param_norm", 1, False, {}),
        ("Learning rate", "rate", "learning_rate", 1, False, {"zero": True}),
        ("Speed", "images per second", "images_per_second", 1, False, {"zero": True}),
        ("Model FLOP utilization", "% of a large matrix product", "mfu", 100, False, {"zero": True}),
        ("Getting data ready", "% of training time", "data_fraction", 100, False, {"zero": True}),
    ]
    by_title = dict(zip(re.findall("<h3>(.*?)</h3>", text), plots, strict=True))
    bins = by_title.pop("Loss by noise level (sigma / alpha)")
    assert list(by_title) == [title for title, *_ in expected]
    for title, unit, key, scale, smooth, axis in expected:
        values = rounded(scale * row[key] for row in more)
        line = rounded(curves.smoothed(np.array([scale * row[key] for row in more]))) if smooth else values
        assert by_title[title].labels == ("step", unit) and by_title[title].axis == axis, title
        assert by_title[title].lines == [(steps, line, blue, "", values if smooth else None)], title
    assert bins.labels == ("step", "loss") and bins.axis == {"logarithmic": True, "legend_outside": True}
    colours = curves.colours_between(10)
    assert [line[:3] for line in bins.lines] == [(steps, rounded(2 / step for step in steps), colours[4])]


@pytest.mark.parametrize(
    "step, of_all, left", [(4, "10.0", "1 min 12 s"), (36, "90.0", "0 min 08 s"), (44, "100.0", None)]
)
def test_what_is_left_of_a_run_takes_as_long_a_step_as_what_was(tmp_path, step, of_all, left):
    """2 seconds a step, of 40 steps."""
    workdir = make_run(tmp_path / "run", rows(step))
    report.write(workdir)
    text = workdir.report.read_text()
    assert f'<div style="width:{of_all}%">' in text
    assert re.findall("<b>([^<]*)</b><span>to go, about</span>", text) == ([left] if left else [])


HOSTILE = '<b>&"name"</b>'


def test_texts_are_shown_as_they_are():
    """Nothing that a name or a path holds becomes a part of the page."""
    made = {
        "table": page.table([HOSTILE], [[HOSTILE], ["x"]]),
        "section": page.section(HOSTILE, "content"),
        "facts": page.facts([(HOSTILE, HOSTILE)]),
        "plot": page.plot(HOSTILE, "<svg/>"),
    }
    for kind, text in made.items():
        assert HOSTILE not in text and html.escape(HOSTILE) in text, kind
        assert text.count(html.escape(HOSTILE)) == (1 if kind == "section" else 2), kind


def test_a_picture_is_in_the_page_with_its_caption(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(path)
    text = page.picture(path, HOSTILE)
    (source,) = re.findall(r'src="data:image/png;base64,([^"]+)"', text)
    assert base64.b64decode(source) == path.read_bytes()
    assert HOSTILE not in text and text.count(html.escape(HOSTILE)) == 2
    page.write(tmp_path / "page.html", HOSTILE, ["one", "two"])
    whole = (tmp_path / "page.html").read_text()
    assert f"<title>{html.escape(HOSTILE)}</title>" in whole and "<body>\none\ntwo\n</body>" in whole


def test_parts_without_content_are_left_out():
    assert page.section("title", "") == page.grids([]) == ""
    assert page.grids(["a", "b"]) == '<div class="grids">ab</div>'
    assert [re.search("width:([0-9.]+)%", page.progress(share))[1] for share in (0, 1 / 3, 0.0016, 1)] == [
        "0.0", "33.3", "0.2", "100.0",
    ]  # fmt: skip
    assert 'class="wide"' in page.plot("a", "", wide=True) and 'class=""' in page.plot("a", "")


@pytest.mark.parametrize("number, title", [(1, "r0"), (3, "r0 / r1 / r2"), (4, "4 runs"), (9, "9 runs")])
def test_a_page_of_up_to_three_runs_is_named_by_them(tmp_path, number, title):
    """Each run has a colour, which the ninth shares with the first."""
    paths = [make_run(tmp_path / f"r{i}", rows(8)).path for i in range(number)]
    compare.write(paths, tmp_path / "out.html")
    text = (tmp_path / "out.html").read_text()
    assert f"<title>{title}</title>" in text and f"<h1>{title}</h1>" in text
    colours = [curves.COLOURS[i % len(curves.COLOURS)] for i in range(number)]
    assert re.findall('style="background:(#[0-9a-f]+)"', text) == colours
    assert len(set(colours)) == min(number, 8)


def test_runs_one_in_the_folder_of_the_other_have_names(tmp_path):
    paths = [tmp_path / "sweep", tmp_path / "sweep" / "lr=1"]
    assert compare.names(paths) == ["sweep", "lr=1"]


def test_figures_of_two_runs_stand_side_by_side(tmp_path):
    a, b, c = (make_run(tmp_path / name, rows(40)) for name in "abc")
    strict_json.write(a.metrics, measured())
    other = measured(samples={"recall": 0.25, "fid": 7}, step=12_345, reference="other & more")
    strict_json.write(b.metrics, other | {"sampling": {"num_samples": 10_000, "sampler": "ddim", "evaluations": None}})
    compare.write([a.path, b.path, c.path], tmp_path / "out.html")
    text = (tmp_path / "out.html").read_text()
    (figures,) = [table for table in tables(text) if table[0][0] == "samples"]
    assert figures == [
        ["samples", "a", "b"],
        ["frechet distance", "1.250", ""],
        ["precision", "0.875", ""],
        ["recall", "0.500", "0.250"],
        ["fid", "", "7"],
        ["samples", "5,000", "10,000"],
        ["sampler", "heun", "ddim"],
        ["evaluations of the network", "35", ""],
        ["of step", "40", "12,345"],
    ]
    assert "Against 898 held-out images; other &amp; more. Features: 64 features &lt;of a perceptron&gt;</p>" in text


def test_the_overview_has_the_last_row_and_leaves_out_what_it_has_not(tmp_path):
    more = [row | {"images_per_second": 1234.4} for row in rows(40)]
    paths = [make_run(tmp_path / name, given).path for name, given in (("a", more), ("b", []), ("c", rows(1000)))]
    compare.write(paths, tmp_path / "out.html")
    text = (tmp_path / "out.html").read_text()
    overview = tables(text)[0]
    assert [row[2:] for row in overview[1:]] == [
        ["40 steps", "1 min 20 s", "0.0250", "1,234", "25.0%"],
        ["step 0 of 40", "", "", "", ""],
        ["1,000 steps", "33 min 20 s", f"{np.mean([1 / s for s in range(952, 1001, 4)]):.4f}", "", "25.0%"],
    ]  # of 250 rows the last 13 are averaged


@pytest.mark.parametrize("length, shown", [(60, "x" * 60), (61, "x" * 59 + "…"), (5, "xxxxx")])
def test_long_values_are_cut_to_60_characters(length, shown):
    assert compare._shown("x" * length) == shown
    assert compare._shown(("ab", 1, 2.5)) == "ab, 1, 2.5"


def test_curves_of_runs_lie_over_each_other_by_step_and_by_time(tmp_path, plots):
    more = [row | {"images_per_second": 9.0 * row["step"]} for row in rows(12)]
    paths = [make_run(tmp_path / name, given).path for name, given in (("a", more), ("b", rows(8, loss=3.0)))]
    compare.write(paths, tmp_path / "out.html")
    text = (tmp_path / "out.html").read_text()
    by_title = dict(zip(re.findall("<h3>(.*?)</h3>", text), plots, strict=True))
    first, second = curves.COLOURS[:2]
    a, b = rounded([1 / 4, 1 / 8, 1 / 12]), [3 / 4, 3 / 8]
    assert {title: (plot.labels, plot.axis, plot.lines) for title, plot in by_title.items()} == {
        "Loss by step": (
            ("step", "loss"), {"logarithmic": True}, [([4, 8, 12], a, first, "a", a), ([4, 8], b, second, "b", b)],
        ),
        "Loss by training time": (
            ("seconds", "loss"), {"logarithmic": True}, [([8, 16, 24], a, first, "a", a), ([8, 16], b, second, "b", b)],
        ),
        "Gradient norm": (
            ("step", "norm"), {"logarithmic": True},
            [([4, 8, 12], [0.5] * 3, first, "a", [0.5] * 3), ([4, 8], [0.5] * 2, second, "b", [0.5] * 2)],
        ),
        "Speed": (("step", "images per second"), {"zero": True}, [([4, 8, 12], [36, 72, 108], first, "a", None)]),
    }  # fmt: skip
