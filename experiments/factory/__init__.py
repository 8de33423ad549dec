"""Config -> objects.

Each function makes one thing from the sections of a config and raises `UserError` for a name that is not known;
`check.py` has what else can be wrong with a config. The tables of names stand in the file of their subject: `model`,
`classes`, `conditions`, `images` (what training makes of the data), `losses`, `averages`, `optimization`, `sampling`, `ends`
(of the process and of the time grid), `evaluation`, `devices`.
"""

from experiments.factory.averages import ema_names, emas, power_emas, sampling_ema
from experiments.factory.classes import (
    check_class,
    check_sampling_label,
    class_number,
    class_record,
    of_class,
    sampled_classes,
)
from experiments.factory.conditions import check_conditions, condition
from experiments.factory.devices import parallel, require_shares
from experiments.factory.ends import check_ends, check_times
from experiments.factory.evaluation import check_features, check_files, check_likelihood, feature_network, reference
from experiments.factory.guidance import check_guidance
from experiments.factory.guidance import check_shapes as check_guidance_shapes
from experiments.factory.images import preparation, rendering
from experiments.factory.losses import (
    BIN_SHARE,
    BINNED_LOSS,
    binned_loss,
    check_training_times,
    loss,
    loss_bin_edges,
)
from experiments.factory.media import complete, medium
from experiments.factory.model import (
    LOSS,
    PROCESSES,
    abstract_variables,
    check_network,
    compute_dtype,
    denoiser,
    init_variables,
    network,
    num_classes,
    process_options,
    projection,
    sde,
    t_max,
)
from experiments.factory.objective import draws_samples, require_samples
from experiments.factory.optimization import learning_rate, optimizer, skips_nonfinite
from experiments.factory.sampling import SAMPLERS, evaluations, sampler, sampler_and_steps, times

__all__ = [
    "BINNED_LOSS",
    "BIN_SHARE",
    "LOSS",
    "PROCESSES",
    "SAMPLERS",
    "abstract_variables",
    "binned_loss",
    "check_class",
    "check_conditions",
    "check_ends",
    "check_features",
    "check_files",
    "check_guidance",
    "check_guidance_shapes",
    "check_likelihood",
    "check_network",
    "check_sampling_label",
    "check_times",
    "check_training_times",
    "class_number",
    "class_record",
    "complete",
    "compute_dtype",
    "condition",
    "denoiser",
    "draws_samples",
    "ema_names",
    "emas",
    "evaluations",
    "feature_network",
    "init_variables",
    "learning_rate",
    "loss",
    "loss_bin_edges",
    "medium",
    "network",
    "num_classes",
    "of_class",
    "optimizer",
    "parallel",
    "power_emas",
    "preparation",
    "process_options",
    "projection",
    "reference",
    "rendering",
    "require_samples",
    "require_shares",
    "sampled_classes",
    "sampler",
    "sampler_and_steps",
    "sampling_ema",
    "sde",
    "skips_nonfinite",
    "t_max",
    "times",
]
