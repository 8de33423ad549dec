"""Comparison of all methods on all cases in one table, for the command `rank`.

The folder of each restoration is the one that `restore` or `reconstruct` writes. A complete folder is kept, so that an
interrupted ranking goes on, and several processes can share the cases.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from experiments.errors import RunError, UserError
from experiments.files import Results, replace_text, strict_json
from experiments.inverse import requests
from experiments.inverse.build import UnsolvableError
from experiments.inverse.cases import CASES
from experiments.inverse.reconstruct import reconstruct
from experiments.inverse.restore import restore

SHARED = "ranking.json"  # what the restorations of a folder have in common
COMMANDS = {"restore": (requests.restoration, restore), "reconstruct": (requests.reconstruction, reconstruct)}


class Row(NamedTuple):
    """What a method came to in a case; None where it does not apply.

    Attributes:
        case: its name.
        way: the method, or the baseline.
        psnr: dB, of the mean of the answers.
        ssim: of that.
        psnr_answer: dB, of one answer.
        perceptual: distance, of one answer.
        misfit: of an answer to what was measured; the noise, for a draw of the posterior.
        correlation: of the answers' standard deviation with the error of their mean, over pixels.
        evaluations: of the Denoiser, for an answer.
    """

    case: str
    way: str
    psnr: float
    ssim: float
    psnr_answer: float | None = None
    perceptual: float | None = None
    misfit: float | None = None
    correlation: float | None = None
    evaluations: int | None = None


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """What the restorations of a ranking have in common.

    Attributes:
        workdir, overrides: the run, and (key, text) pairs of config.sampling.
        truth: clean images, which are measured with noise.
        limit: number of images.
        answers: samples per image.
        out: the folder to write.
    """

    workdir: Path
    overrides: list[tuple[str, str]]
    truth: str
    limit: int
    answers: int
    out: Path


def rank(ranking: Ranking, cases: Sequence[str], methods: Sequence[str]) -> Results:
    """Makes the restorations that are not there, and the table of all that are.

    Raises:
        UserError: the folder has restorations of other images, or of another run.
    """
    _claim(ranking)
    failures = []
    jobs = [(case, method) for case in cases for method in methods]
    for case, method in tqdm(jobs, unit="restoration", desc="ranking"):
        folder = ranking.out / case / method
        if not (folder / "results.json").exists():
            try:
                _restore(ranking, case, method, folder)
            except UnsolvableError:
                continue
            except RunError as error:
                failures.append(f"{case} by {method}: {error}")
                tqdm.write(failures[-1])
        replace_text(ranking.out / "table.md", markdown(list(rows(ranking.out))))
    found, table = list(rows(ranking.out)), ranking.out / "table.md"
    metrics = {"rows": [row._asdict() for row in found]}
    return Results(f"{best(found)}\nTable: {table}", (table,), metrics)


def _claim(ranking: Ranking) -> None:
    """Stores what the restorations of the folder have in common.

    Raises:
        UserError: the folder has restorations of another ranking.
    """
    shared = {"workdir": str(ranking.workdir), "truth": ranking.truth, "limit": ranking.limit}
    shared |= {"answers": ranking.answers, "overrides": [f"--config.{key}={text}" for key, text in ranking.overrides]}
    file = ranking.out / SHARED
    if file.exists():
        before = strict_json.read(file)
        for name, value in shared.items():
            if before.get(name) != value:
                raise UserError(f"--out={ranking.out} has restorations of {name}={before.get(name)}, not {value}")
        return
    ranking.out.mkdir(parents=True, exist_ok=True)
    strict_json.write(file, shared)


def _restore(ranking: Ranking, case: str, method: str, folder: Path) -> None:
    """Restores the images of a case by a method and writes the folder, as the command of the case does.

    Raises:
        UserError, RunError: as `restore` and `reconstruct`.
    """
    command, name, noise, options = CASES[case]
    request, run = COMMANDS[command]
    run(
        request(
            name, options, noise=noise, method=method, workdir=ranking.workdir, overrides=ranking.overrides,
            input=None, truth=ranking.truth, out=folder, answers=ranking.answers, seed=0, limit=ranking.limit,
        )
    )  # fmt: skip


def rows(out: Path) -> Iterator[Row]:
    """What the restorations of a folder came to, by case; baselines once for each case."""
    for case in CASES:
        told = [strict_json.read(path, strict_json.RESULTS) for path in sorted((out / case).glob("*/results.json"))]
        for each in told:
            yield _of_method(case, each)
        if told:
            yield from _baselines(case, told[0]["figures"])


def _of_method(case: str, told: dict[str, Any]) -> Row:
    figures = told["figures"]
    return Row(
        case=case,
        way=told["method"],
        psnr=figures["psnr"]["mean"],
        ssim=figures["ssim"]["mean"],
        psnr_answer=figures["psnr"]["answers"],
        perceptual=figures["perceptual"]["answers"],
        misfit=figures["misfit"],
        correlation=figures["deviation_error_correlation"],
        evaluations=told["evaluations"],
    )


def _baselines(case: str, figures: dict[str, Any]) -> Iterator[Row]:
    for name in figures["psnr"]:
        if name not in ("answers", "mean"):
            psnr, ssim, distance = (figures[metric][name] for metric in ("psnr", "ssim", "perceptual"))
            yield Row(case, name, psnr, ssim, psnr_answer=psnr, perceptual=distance)


def _ranked(found: Sequence[Row], case: str) -> list[Row]:
    return sorted((row for row in found if row.case == case), key=lambda row: -row.psnr)


def markdown(found: Sequence[Row]) -> str:
    """The table: cases in their order, the best PSNR first; baselines are in italics."""
    lines = [
        "| case | method | PSNR of the mean, dB | SSIM of the mean | PSNR of an answer, dB | perceptual distance | misfit "
        "| deviation and error correlate | evaluations |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for case in CASES:
        for row in _ranked(found, case):
            way = f"*{row.way}*" if row.evaluations is None else f"`{row.way}`"
            cells = [f"{row.psnr:.2f}", f"{row.ssim:.3f}", _cell(row.psnr_answer, ".2f"), _cell(row.perceptual, ".3f")]
            cells += [_cell(row.misfit, ".3g"), _cell(row.correlation, ".2f"), _cell(row.evaluations, "d")]
            lines.append(f"| {case} | {way} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _cell(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def best(found: Sequence[Row]) -> str:
    """Of each case the best method and the best baseline."""
    lines = []
    for case in CASES:
        ranked = _ranked(found, case)
        ways = [next((row for row in ranked if (row.evaluations is None) == plain), None) for plain in (False, True)]
        shown = [f"{row.way} {row.psnr:.2f} dB (SSIM {row.ssim:.3f})" for row in ways if row is not None]
        lines += [f"{case:16}{'; '.join(shown)}"] if shown else []
    return "\n".join(lines)
