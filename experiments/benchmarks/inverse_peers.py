"""azula's methods on the cases of `benchmark --suite=inverse`; needs the `interop` extra.

They have the same prior, written as a Denoiser in torch in float64, the same y, and as many evaluations: azula's samplers
make one at each step. Everything is azula's default but for these, each set by a parameter of azula's. MMPS makes one
iteration, the default, and 5, the most that its authors take; DiffPIR has a strength of 10, the default, and of 1, ours;
PiGDM has eta = 1, as published. Posterior Denoisers are run by azula's DDPM or DDIM sampler, whichever comes nearer. The
schedule is its VPSchedule.

DPS moves x by zeta along the gradient of |y - A D|, a norm over the whole batch: one image at a time is meant. For B images
at once zeta is sqrt(B) times as large, which is the same as far as their norms are alike.

Source: azula 0.11, https://azula.readthedocs.io, module azula.guidance.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from sde_lib.exact import CorrelatedMixture


def denoiser(prior: CorrelatedMixture) -> Any:
    """The exact Denoiser of the prior, azula's, for vectors (B, d)."""
    import torch
    from azula.denoise import Denoiser, DiracPosterior
    from azula.noise import VPSchedule

    variances, axes = (torch.from_numpy(array) for array in np.linalg.eigh(np.asarray(prior.covariances)))
    k = len(variances)
    means = torch.from_numpy(np.array(prior.means).reshape(k, -1))
    weights = torch.full((k,), 1 / k) if prior.weights is None else torch.from_numpy(np.array(prior.weights))

    class Mixture(Denoiser):
        schedule = VPSchedule()

        def forward(self, x_t, t):
            alpha, sigma = self.schedule(t)
            of_y = variances + (sigma / alpha) ** 2
            offset = torch.einsum("bkd,kde->bke", x_t[:, None] / alpha - means, axes)
            log_joint = weights.log() - 0.5 * (offset**2 / of_y + of_y.log()).sum(-1)
            components = means + torch.einsum("bke,kde->bkd", variances / of_y * offset, axes)
            return DiracPosterior((log_joint.softmax(1)[..., None] * components).sum(1))

    return Mixture()


def _mmps(prior, y, forward, noise, iterations):
    from azula.guidance import MMPSDenoiser
    from azula.linalg.covariance import IsotropicCovariance

    return MMPSDenoiser(prior, y, forward, IsotropicCovariance(noise**2), iterations=iterations)


def _tmpd(prior, y, forward, noise):
    from azula.guidance import TMPDenoiser

    return TMPDenoiser(prior, y, forward, noise**2)


def _diffpir(prior, y, forward, noise, strength):
    from azula.guidance import DiffPIRDenoiser

    return DiffPIRDenoiser(prior, y, forward, noise**2, lmbda=strength)


def _under(sampler, posterior, prior, y, forward, backward, noise, **options):
    """A posterior Denoiser under the sampler of that name."""
    import azula.sample

    return getattr(azula.sample, sampler)(posterior(prior, y, forward, noise), **options)


def _dps(prior, y, forward, backward, noise, **options):
    from azula.guidance import DPSSampler

    return DPSSampler(prior, y, forward, zeta=np.sqrt(len(y)), **options)


def _pigdm(prior, y, forward, backward, noise, **options):
    from azula.guidance import PGDMSampler

    return PGDMSampler(prior, y, forward, backward, eta=1.0, **options)


# (products with the Jacobian for each evaluation, what makes the sampler) by the name of the row.
PEERS: dict[str, tuple[int, Callable[..., Any]]] = {
    "azula: mmps 1": (2, partial(_under, "DDPMSampler", partial(_mmps, iterations=1))),
    "azula: mmps 5": (6, partial(_under, "DDIMSampler", partial(_mmps, iterations=5))),
    "azula: tmpd": (2, partial(_under, "DDPMSampler", _tmpd)),
    "azula: diffpir 10": (0, partial(_under, "DDIMSampler", partial(_diffpir, strength=10.0))),
    "azula: diffpir 1": (0, partial(_under, "DDPMSampler", partial(_diffpir, strength=1.0))),
    "azula: dps": (1, _dps),
    "azula: pigdm": (1, _pigdm),
}


def draw(
    peer: str, prior: CorrelatedMixture, matrix: np.ndarray, y: np.ndarray, noise: float, steps: int
) -> np.ndarray:
    """Answers (B, d) to y (B, M) = matrix x + noise, with so many evaluations."""
    import torch

    rows, inverse, y = (torch.from_numpy(np.array(array)) for array in (matrix, np.linalg.pinv(matrix), y))
    make = PEERS[peer][1]
    sampler = make(
        denoiser(prior),
        y,
        lambda x: x @ rows.T,
        lambda y: y @ inverse.T,
        noise,
        steps=steps,
        silent=True,
        dtype=torch.float64,
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # more of them wait for each other: the arrays are small
    try:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return sampler(sampler.init((len(y), rows.shape[1]), dtype=torch.float64)).numpy()
    finally:
        torch.set_num_threads(threads)


def installed() -> bool:
    """Whether azula is."""
    try:
        import azula  # noqa: F401
    except ImportError:
        return False
    return True
