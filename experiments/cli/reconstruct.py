"""The command `reconstruct`."""

import argparse

from experiments.cli import answers, arguments
from experiments.inverse import modalities, problems, requests

SUMMARY = (
    "Reconstruct MRI from k-space or CT from projections by a trained model, with several answers, which show what the "
    "measurement leaves open, and classical reconstructions beside."
)
EXAMPLE = "python -m experiments reconstruct --workdir=runs/brain --modality=mri --truth=brain.nii.gz --out=recon"

EPILOG = """\
--input is an .npz file of what was measured:
  mri  kspace, complex (N, H, W) or (N, coils, H, W), zero frequency in the middle; mask (H, W); maps, complex (coils, H, W)
  ct   projections (N, angles, bins), bins one pixel apart; angles, in degrees, evenly spaced; mask (angles, bins), 0 for
       rays that are lost, if there are any
--truth is a volume (.nii, .nii.gz, a .dcm file or a folder of a series), or images as `restore` takes them; without --input
it is measured, with noise.

Methods, as --method=NAME or --method=NAME:SETTING=VALUE,... :

{methods}

  {example}
  python -m experiments reconstruct --workdir=runs/brain --modality=mri --input=scan.npz --method=dps --out=recon
  python -m experiments reconstruct --workdir=runs/chest --modality=ct --truth=series --window=-160,240 --out=recon
"""


def add_arguments(parser: arguments.Parser) -> None:
    """Its arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG.format(methods=problems.table(problems.METHODS), example=EXAMPLE)
    arguments.add_workdir(parser, "config.sampling")
    parser.add_argument("--modality", required=True, help=", ".join(modalities.MODALITIES))
    defaults = ", ".join(f"{name} {method}" for name, method in modalities.DEFAULT_METHODS.items())
    answers.add_arguments(
        parser,
        kind="FILE",
        measured="what was measured; see below",
        truth="slices to compare with, or to measure; see below",
        out="folder to write",
        each="slice",
        inputs="slices",
        method=f"how answers are drawn (default: {defaults})",
    )
    parser.add_argument(
        "--noise",
        type=arguments.number,
        help="standard deviation of each value measured of pixels in [-1, 1] (default 0.02)",
    )
    parser.add_argument(
        "--white", type=arguments.number, help="of --input alone: the intensity that is white (default: estimated)"
    )
    made = parser.add_argument_group("how --truth is measured")
    made.add_argument("--mask", help=f"mri: {', '.join(modalities.MASKS)} (default random_lines)")
    made.add_argument(
        "--acceleration", type=arguments.number, help="mri: 1 / the share of k-space that is sampled (default 4)"
    )
    made.add_argument("--coils", type=arguments.positive, help="mri: around the image (default 1)")
    made.add_argument("--operator_seed", type=arguments.seed, help="mri --mask=random_lines: which lines (default 0)")
    made.add_argument("--angles", type=arguments.positive, help="ct: how many projections (default 30)")
    made.add_argument("--arc", type=arguments.number, help="ct: over which they are spread, in degrees (default 180)")
    made.add_argument(
        "--metal",
        metavar="FILE",
        help="ct: an image of the model's size, white where metal is: rays through it are lost",
    )
    volume = parser.add_argument_group("of a volume")
    volume.add_argument("--axis", help="across which slices lie: axial (default), coronal, sagittal")
    volume.add_argument("--window", metavar="LOW,HIGH", help="intensities that are black and white (by the file)")
    volume.add_argument("--slices", metavar="FIRST:END[:STEP]", help="which slices (default: all)")
    arguments.add_label(parser, "the class of all answers (default: each in turn); short for --config.sampling.label")
    arguments.add_guidance(parser)
    arguments.add_distributed(parser)


def run(options: argparse.Namespace) -> int:
    """Reconstructs; the exit code."""
    request = _request(options)
    from experiments.inverse.reconstruct import reconstruct

    return arguments.tell(reconstruct(request))


def _request(options: argparse.Namespace) -> modalities.Reconstruction:
    """Returns the request.

    Raises:
        UserError: as of `requests.reconstruction`.
    """
    return requests.reconstruction(
        options.modality,
        answers.given(options, modalities.flags()),
        noise=options.noise,
        white=options.white,
        axis=options.axis,
        window=options.window,
        slices=options.slices,
        **answers.shared(options),
    )
