"""The command `prepare`."""

import argparse
from pathlib import Path

from experiments.cli import arguments
from experiments.config import sizes
from experiments.errors import UserError

SUMMARY = "Write a data set as sharded records, which are read from the disk at random: for data that outgrows memory."
EXAMPLE = (
    "python -m experiments prepare --source=folder:pictures --out=data/pictures64 --image_size=64 --resize=center_crop"
)


def image_size(text: str) -> sizes.Size:
    """(height, width) of `--image_size`."""
    return sizes.parse(text, "--image_size")


def add_arguments(parser: arguments.Parser) -> None:
    """Its arguments."""
    parser.add_argument("--source", required=True, help="the images, as data.source in configs/base.py")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder to make; train with data.source=arrayrecord:OUT"
    )
    parser.add_argument(
        "--image_size", type=image_size, help="side in pixels, or HEIGHTxWIDTH (default: the first image's)"
    )
    parser.add_argument(
        "--num_channels", type=int, choices=(1, 3, 4), help="1 grey, 3 RGB, 4 with alpha (default: as the first image)"
    )
    parser.add_argument(
        "--resize", default="none", help="images of another size: none (refused), center_crop (default none)"
    )
    parser.add_argument("--background", default="white", help="colour behind transparent pixels (default white)")
    parser.add_argument(
        "--white",
        type=float,
        default=0.0,
        help="level that is white in images that are not of 8 bits, as 65535, or 4095 for 12-bit data (default: refused)",
    )
    parser.add_argument(
        "--stream", action="store_true", help="hf:NAME: read it from the hub while writing; store no copy"
    )
    parser.add_argument(
        "--features",
        help="also write statistics for evaluation in these features: evaluation.features in configs/base.py",
    )
    parser.add_argument(
        "--feature_weights", type=Path, help="the publisher's file of them, as evaluation.feature_weights"
    )
    parser.add_argument(
        "--shard_mb", type=arguments.positive, default=256, help="pixels in a file, in MB uncompressed (default 256)"
    )


def run(options: argparse.Namespace) -> int:
    """Prepares; the exit code."""
    from experiments.data.prepare import prepare

    if options.overrides:
        key, text = options.overrides[0]
        raise UserError(f"--config.{key}={text}: prepare takes no config; its own flags are in --help")
    statistics = None
    if options.features is not None or options.feature_weights is not None:
        from experiments.metrics import feature_networks
        from experiments.metrics.prepared import FeatureStatistics

        statistics = FeatureStatistics(feature_networks.load(options.features or "", options.feature_weights))
    description = prepare(
        options.source,
        options.out,
        image_size=options.image_size,
        num_channels=options.num_channels,
        resize=options.resize,
        background=options.background,
        white=options.white,
        stream=options.stream,
        shard_mb=options.shard_mb,
        statistics=statistics,
    )
    height, width, channels = description.image_shape
    counts = {name: sum(shard.count for shard in shards) for name, shards in description.splits.items()}
    what = ", ".join(f"{count:,} ({name})" for name, count in counts.items())
    print(
        f"{what} images of {height}x{width}x{channels} in {options.out}. Next: python -m experiments train ... "
        f"--config.data.source=arrayrecord:{options.out} --config.data.image_size={sizes.written((height, width))} "
        f"--config.data.num_channels={channels}"
    )
    return 0
