"""A sampler: `--sampler=my_sampler:Midpoint`."""

from sde_lib import Sampler


class Midpoint(Sampler):
    """The explicit midpoint method on the probability flow, of order 2; two evaluations a step.

    Annotated attributes are options of the config: `--config.sampling.place=0.4`.
    """

    place: float = 0.5  # of the second evaluation in the step; 1/2 gives order 2

    def step(self, carry, keys, x, t, s, denoiser):
        """Takes x (B, *event) from time t to time s < t."""
        middle = t + self.place * (s - t)
        x_middle = x + (middle - t) * denoiser.velocity(x, t)
        return carry, x + (s - t) * denoiser.velocity(x_middle, middle)

    def nfe(self, n_steps):
        """Evaluations of the Denoiser in n steps, the last of which is the denoising step."""
        return 2 * (n_steps - 1) + 1
