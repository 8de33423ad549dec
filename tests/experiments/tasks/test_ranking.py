"""The command `rank`: the table says what each restoration came to, the best first, and nothing is made twice."""

import json

import numpy as np
import pytest

from experiments.__main__ import main
from experiments.errors import RunError, UserError
from experiments.files import Results
from experiments.inverse import ranking, results
from experiments.inverse.build import UnsolvableError
from experiments.inverse.cases import CASES
from tests.experiments.tiny import ROOT

PSNR = {"pigdm": 20.0, "dps": 25.0}


def write(folder, method, psnr):
    """As `results.write` does, of a method whose answers have that PSNR, 2 dB less each, beside a baseline of 22 dB."""
    figures = {
        "psnr": {"answers": psnr - 2, "mean": psnr, "plain": 22.0},
        "ssim": {"answers": 0.1, "mean": psnr / 100, "plain": 0.22},
        "perceptual": {"answers": 0.3, "mean": 0.4, "plain": 0.5},
        "misfit": 0.05,
        "deviation_error_correlation": 0.6,
    }
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps({"method": method, "evaluations": 100, "figures": figures}))


@pytest.fixture
def rank(monkeypatch, tmp_path):
    """Ranks by restorations that cost nothing; gives (exit code, what was restored). ddnm cannot, daps fails."""
    restored = []

    def restore(options, case, method, folder):
        restored.append((case, method))
        if method == "ddnm":
            raise UnsolvableError("ddnm needs a linear measurement")
        if method == "daps":
            raise RunError("answer 0 is not finite")
        write(folder, method, PSNR[method])

    monkeypatch.setattr(ranking, "_restore", restore)

    def run(methods, *more, truth="digits.npz"):
        restored.clear()
        arguments = ["rank", f"--workdir={tmp_path}", f"--truth={truth}", f"--out={tmp_path / 'out'}"]
        return main([*arguments, f"--methods={methods}", *more]), list(restored)

    return run


def test_the_best_comes_first_and_baselines_once(rank, tmp_path, capsys):
    code, restored = rank("pigdm,ddnm,dps,daps", "--cases=hdr,denoise")
    assert code == 0
    assert restored == [(case, method) for case in ("hdr", "denoise") for method in ("pigdm", "ddnm", "dps", "daps")]
    cells = [line.strip("| ").split(" | ") for line in (tmp_path / "out/table.md").read_text().splitlines()[2:]]
    of_a_case = [
        ["`dps`", "25.00", "0.250", "23.00", "0.300", "0.05", "0.60", "100"],
        ["*plain*", "22.00", "0.220", "22.00", "0.500"],
        ["`pigdm`", "20.00", "0.200", "18.00", "0.300", "0.05", "0.60", "100"],
    ]
    assert [[c for c in row if c.strip(" |")] for row in cells] == [
        [case, *row] for case in ("denoise", "hdr") for row in of_a_case
    ]
    said = capsys.readouterr()
    assert "denoise         dps 25.00 dB (SSIM 0.250); plain 22.00 dB (SSIM 0.220)" in said.out
    assert "hdr by daps: answer 0 is not finite" in said.err + said.out


def test_what_is_there_is_not_made_again(rank):
    rank("pigdm", "--cases=denoise")
    assert rank("pigdm,dps", "--cases=denoise") == (0, [("denoise", "dps")])


def test_restorations_of_other_images_are_not_mixed(rank, capsys):
    rank("pigdm", "--cases=denoise")
    assert rank("pigdm", "--cases=denoise", truth="others.npz") == (2, [])
    assert "has restorations of truth=digits.npz, not others.npz" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--cases=denoize", "did you mean 'denoise'?"),
        ("--methods=pigdn", "did you mean 'pigdm'?"),
        ("--answers=1", "must be at least 2"),
    ],
)
def test_bad_input(rank, flag, said, capsys):
    code, restored = rank("pigdm", flag)
    assert (code, restored) == (2, [])
    assert said in capsys.readouterr().err


def test_how_far_the_deviation_tells_the_error():
    """Of images where one is the other but for scale and offset: 1 for a factor of more than 0, -1 for less."""
    deviation = np.random.default_rng(0).random((3, 4, 4, 1))
    error = np.array([2.0, 0.5, -1.0]).reshape(3, 1, 1, 1) * deviation + 7
    assert results._correlation(deviation, error) == pytest.approx((1 + 1 - 1) / 3)
    shuffled = np.random.default_rng(1).permutation(error.ravel()).reshape(error.shape)
    expected = np.mean([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(deviation, shuffled, strict=True)])
    assert results._correlation(deviation, shuffled) == pytest.approx(expected)


@pytest.mark.thorough
def test_from_the_command_line(digits_run, digits, tmp_path, one_device):
    """A line for each method that can: DDNM is for linear measurements, which JPEG is not."""
    np.savez(tmp_path / "digits.npz", images=digits)
    out = tmp_path / "out"
    arguments = [f"--workdir={digits_run}", f"--truth={tmp_path / 'digits.npz'}", "--limit=3", "--answers=2"]
    chosen = ["--cases=inpaint-random,dejpeg", "--methods=ddnm,dps", "--config.sampling.steps=4"]
    assert main(["rank", *arguments, *chosen, f"--out={out}"]) == 0
    rows = list(ranking.rows(out))
    assert [(row.case, row.way) for row in rows] == [
        ("dejpeg", "dps"),
        ("dejpeg", "as measured"),
        ("inpaint-random", "ddnm"),
        ("inpaint-random", "dps"),
        ("inpaint-random", "biharmonic"),
    ]
    assert [row.evaluations for row in rows] == [4, None, 4, 4, None]
    assert all((out / row.case / row.way / "sheet.png").exists() for row in rows if row.evaluations)
    assert set(CASES) > {row.case for row in rows}


def shared(tmp_path, **changes):
    given = {"workdir": tmp_path / "run", "truth": "digits.npz", "limit": 3, "answers": 2, "out": tmp_path / "out"}
    return ranking.Ranking(**given | {"overrides": [("sampling.steps", "4")]} | changes)


@pytest.mark.parametrize(
    "changes", [{"truth": "x"}, {"limit": 4}, {"answers": 3}, {"overrides": []}, {"overrides": [("sampling.steps", "5")]},
                {"workdir": "other"}],
)  # fmt: skip
def test_restorations_of_a_folder_have_all_of_their_options_in_common(tmp_path, changes):
    ranking._claim(shared(tmp_path))
    ranking._claim(shared(tmp_path))
    with pytest.raises(UserError, match=rf"^--out={tmp_path}/out has restorations of {next(iter(changes))}="):
        ranking._claim(shared(tmp_path, **changes))


def test_a_restoration_is_that_of_the_command_line_of_its_case(tmp_path, monkeypatch):
    requests = []
    for command, (request, _) in ranking.COMMANDS.items():
        monkeypatch.setitem(ranking.COMMANDS, command, (request, requests.append))
        monkeypatch.setattr(
            f"experiments.inverse.{command}.{command}", lambda request: requests.append(request) or Results()
        )
    for case, line in {
        "inpaint-random": "restore --task=inpaint --mask=random --share=0.3 --noise=0.05",
        "ct-limited": "reconstruct --modality=ct --angles=40 --arc=90 --noise=0.02",
    }.items():
        requests.clear()
        ranking._restore(shared(tmp_path), case, "ddrm", tmp_path / "f")
        common = [
            "--method=ddrm", f"--workdir={tmp_path}/run", "--truth=digits.npz", f"--out={tmp_path}/f", "--limit=3",
            "--answers=2", "--config.sampling.steps=4",
        ]  # fmt: skip
        assert main([*line.split(), *common]) == 0
        assert requests[0] == requests[1], line


def test_rows_have_the_figures_of_the_mean_and_of_an_answer(tmp_path):
    write(tmp_path / "hdr" / "dps", "dps", 25.0)
    first, plain = ranking.rows(tmp_path)
    assert first == ranking.Row("hdr", "dps", 25.0, 0.25, 23.0, 0.3, 0.05, 0.6, 100)
    assert plain == ranking.Row("hdr", "plain", 22.0, 0.22, 22.0, 0.5)
    assert ranking.best([plain]) == "hdr             plain 22.00 dB (SSIM 0.220)"
    assert ranking.best([]) == "" and ranking.best([first]) == "hdr             dps 25.00 dB (SSIM 0.250)"


def test_cases_are_the_documented_ones():
    """Their names and noise are those of docs/restoring.md, whose tables the options have made."""
    text = " ".join((ROOT / "docs" / "restoring.md").read_text().split())
    assert "0.3 for `denoise`, 0.02 for `dejpeg`, `mri` and `ct`" in text and "0.05 elsewhere" in text
    expected = {
        "colorize": {}, "deblur": {"kernel": "gaussian"}, "deblur-light": {"kernel": "motion"},
        "deblur-motion": {"kernel": "motion"}, "dejpeg": {"quality": 10}, "denoise": {}, "hdr": {},
        "inpaint-box": {"mask": "box"}, "inpaint-random": {"mask": "random", "share": 0.3}, "phase": {},
        "sensing": {"share": 0.25}, "superres": {"factor": 4}, "mri": {"mask": "random_lines", "acceleration": 4},
        "mri-coils": {"mask": "radial", "acceleration": 6, "coils": 4}, "ct": {"angles": 20},
        "ct-limited": {"angles": 40, "arc": 90},
    }  # fmt: skip
    assert {name: case.options for name, case in CASES.items()} == expected
    names = {"inpaint-box": "inpaint", "inpaint-random": "inpaint", "deblur-motion": "deblur", "mri-coils": "mri"}
    names |= {"ct-limited": "ct"}
    for name, case in CASES.items():
        assert case.name == names.get(name, name), name
        assert case.noise == {"denoise": 0.3, "dejpeg": 0.02, "mri": 0.02, "ct": 0.02}.get(case.name, 0.05), name
        assert case.command == ("reconstruct" if case.name in ("mri", "ct") else "restore"), name
