"""Class-conditional models, and noise-conditional classifiers for guidance.

Source: Ho and Salimans (2022), https://arxiv.org/abs/2207.12598, for the dropout of classes; Dhariwal and Nichol
(2021), https://arxiv.org/abs/2105.05233, for the classifier.
"""

import difflib

from ml_collections import ConfigDict

from configs.parts import sde

KINDS = ("conditional", "classifier")


def split(argument: str, default: str = "vp") -> tuple[str, str]:
    """Splits an argument such as `ve,conditional` or `classifier` into the process and the kind of model.

    Args:
        argument: of the config.
        default: process of an argument without a process.

    Returns:
        The process, and "conditional", "classifier" or "".

    Raises:
        ValueError: a word is unknown, or there is more than one process or kind.
    """
    words = argument.split(",")
    known = [*sde.PROCESSES, *KINDS]
    for word in words:
        if word not in known:
            nearest = difflib.get_close_matches(word, known, 1)
            meant = f"; did you mean {nearest[0]!r}?" if nearest else ""
            raise ValueError(f"{word!r} is unknown: choose from {', '.join(known)}{meant}")
    kinds = [word for word in words if word in KINDS]
    if len(kinds) > 1 or len(words) - len(kinds) > 1:
        raise ValueError(f"{argument!r}: one process and one of {', '.join(KINDS)} at most")
    kind = kinds[0] if kinds else ""
    return ",".join(word for word in words if word not in KINDS) or default, kind


def conditional(config: ConfigDict, num_classes: int) -> None:
    """Makes the network class-conditional, with a probability of 0.1 of "no class" for classifier-free guidance."""
    config.model.num_classes = num_classes
    config.condition.label.dropout = 0.1


def classifier(config: ConfigDict, num_classes: int, **options) -> None:
    """Sets a small `unet_classifier` of noisy data, trained at uniform log-SNRs, with `options` of the network."""
    config.objective.name = "classification"
    options = {"channels": 32, "blocks_per_level": 1, "head_channels": 32, "norm_groups": 0, "dropout": 0.2} | options
    config.model = ConfigDict({"name": "unet_classifier", "num_classes": num_classes} | options)
    config.loss.times = "log_snr"
    config.optim.lr = 1e-3
