"""Import of the released NCSN and NCSNv2 networks.

The tensors are those of the PyTorch modules CondRefineNetDilated (NCSN), NCSNv2, NCSNv2Deeper (128 pixels) and
NCSNv2Deepest (256 pixels), without the prefix `module.` of data-parallel training. The mapping excludes `SIGMAS`, the
list of noise levels of NCSNv2 for data in [0, 1].

Sources: https://github.com/ermongroup/ncsn/blob/master/models/cond_refinenet_dilated.py,
https://github.com/ermongroup/ncsnv2/blob/master/models/ncsnv2.py. The networks of these names in score_sde are
different and not supported: in JAX, one refine block is wider and the variance of the means is biased; in PyTorch,
their constructors fail (commit cb1f359, models/layers.py, `ncsn_conv3x3` without bias).
"""

from models.ncsn import NCSN, NCSNv2
from models.pretrained.mapping import CONV, Path, Weight

SIGMAS = "sigmas"

# Names of the stages in the released networks, finest first, by the number of stages.
STAGES = {4: ("1", "2", "3", "4"), 5: ("1", "2", "3", "4", "5"), 6: ("1", "2", "3", "31", "4", "5")}
REFINERS = {4: ("4", "3", "2", "1"), 5: ("5", "4", "3", "2", "1"), 6: ("5", "4", "3", "31", "2", "1")}


def mapping(network: NCSN | NCSNv2) -> dict[Path, Weight]:
    """Returns the mapping from the weights of the network to the tensors of the file.

    Raises:
        ValueError: the network has classes, or a number of stages without a released network.
    """
    stages = len(network.channel_multipliers)
    if stages not in STAGES or network.num_classes:
        raise ValueError(
            f"{type(network).__name__}: released networks have 4, 5 or 6 stages and no classes, "
            f"not {stages} stages and num_classes={network.num_classes}"
        )
    conditional = isinstance(network, NCSN)
    weights = {}

    def conv(ours, theirs, bias=True):
        weights[*ours, "kernel"] = Weight(f"{theirs}.weight", CONV)
        if bias:
            weights[*ours, "bias"] = Weight(f"{theirs}.bias")

    def norm(ours, theirs):
        if conditional:
            weights[*ours, "table"] = Weight(f"{theirs}.embed.weight")
        else:
            names = {"scale": "gamma", "mean_scale": "alpha", "bias": "beta"}
            weights.update({(*ours, name): Weight(f"{theirs}.{their_name}") for name, their_name in names.items()})

    def units(ours, theirs, number):
        for unit in range(number):
            for i in range(2):
                conv((*ours, f"conv_{unit}_{i}"), f"{theirs}.{unit + 1}_{i + 1}_conv", bias=False)
                if conditional:
                    norm((*ours, f"norm_{unit}_{i}"), f"{theirs}.{unit + 1}_{i + 1}_norm")

    conv(("conv_in",), "begin_conv")
    conv(("conv_out",), "end_conv")
    norm(("norm_out",), "normalizer")
    for stage in range(stages):
        for i in range(2):
            ours, theirs = f"down_{stage}_{i}", f"res{STAGES[stages][stage]}.{i}"
            change = stage > 0 and i == 0
            inner = ".conv" if change and network.dilations[stage] == 1 else ""  # the convolution before a pooling
            norm((ours, "norm_in"), f"{theirs}.normalize1")
            norm((ours, "norm_out"), f"{theirs}.normalize2")
            conv((ours, "conv_in"), f"{theirs}.conv1")
            conv((ours, "conv_out"), f"{theirs}.conv2{inner}")
            if change:
                conv((ours, "skip"), f"{theirs}.shortcut{inner}")

        ours, theirs = f"refine_{stage}", f"refine{REFINERS[stages][stage]}"
        inputs = 1 if stage == stages - 1 else 2
        for i in range(inputs):
            units((ours, f"adapt_{i}"), f"{theirs}.adapt_convs.{i}", 2)
            if inputs > 1:
                conv((ours, f"fuse_{i}"), f"{theirs}.msf.convs.{i}")
                if conditional:
                    norm((ours, f"fuse_{i}_norm"), f"{theirs}.msf.norms.{i}")
        for i in range(2):
            conv((ours, f"pool_{i}"), f"{theirs}.crp.convs.{i}", bias=False)
            if conditional:
                norm((ours, f"pool_{i}_norm"), f"{theirs}.crp.norms.{i}")
        units((ours, "output"), f"{theirs}.output_convs", 1 if stage else 3)
    return {("params", *path): weight for path, weight in weights.items()}
