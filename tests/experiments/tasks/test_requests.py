"""Requests to `restore` and `reconstruct` as `rank` and the command line build them: defaults, and what is refused."""

from pathlib import Path

import numpy as np
import pytest

from experiments.errors import UserError
from experiments.inverse import requests, scanners
from experiments.inverse.modalities import Reconstruction
from experiments.inverse.problems import Restoration
from sde_lib import inverse

SHARED = {
    "workdir": Path("run"), "overrides": [("sampling.steps", "4")], "input": None, "truth": "t.png", "out": Path("out"),
    "answers": 3, "seed": 5, "limit": 7,
}  # fmt: skip
GIVEN = {"input": "y.npz", "truth": None}


def restoration(task="hdr", options=None, **changes):
    return requests.restoration(task, options or {}, **SHARED | changes)


def reconstruction(modality="mri", options=None, **changes):
    return requests.reconstruction(modality, options or {}, **SHARED | changes)


PIGDM = {"method": "pigdm", "settings": {"data_std": 0.5}}


@pytest.mark.parametrize(
    "given, expected",
    [
        ({}, {**PIGDM, "noise": 0.05, "peak": None, "options": {"contrast": 2.0}}),
        (
            {"options": {"contrast": 3.0}, "noise": 0.2},
            {**PIGDM, "noise": 0.2, "peak": None, "options": {"contrast": 3.0}},
        ),
        ({"noise": 0.0}, {**PIGDM, "noise": 0.0, "peak": None, "options": {"contrast": 2.0}}),
        (
            {"method": "dps:zeta=2", "noise_kind": "poisson", "peak": 100.0},
            {"method": "dps", "settings": {"zeta": 2.0}, "noise": 0.0, "peak": 100.0, "options": {"contrast": 2.0}},
        ),
        (
            {"task": "denoise", "method": "ddnm"},
            {"method": "ddnm", "settings": {}, "noise": 0.0, "peak": None, "options": {}},
        ),
        (GIVEN, {**PIGDM, "noise": 0.05, "peak": None, "options": {"contrast": 2.0}}),
    ],
)
def test_a_restoration_has_the_defaults_of_its_task_and_method(given, expected):
    found = restoration(**given)
    shared = SHARED | {name: given[name] for name in SHARED if name in given}
    assert found == Restoration(**shared, task=given.get("task", "hdr"), **expected)


MRI = {"mask": "random_lines", "acceleration": 4.0, "coils": 1, "operator_seed": 0}
VOLUME = {"axis": "axial", "window": None, "chosen": slice(None, None), "white": None}


@pytest.mark.parametrize(
    "given, expected",
    [
        ({}, {**PIGDM, **VOLUME, "noise": 0.02, "options": MRI}),
        (
            {"options": {"mask": "radial"}, "method": "mmps:max_steps=2", "noise": 0.1},
            {**VOLUME, "method": "mmps", "settings": {"max_steps": 2, "rtol": 1e-3}, "noise": 0.1,
             "options": MRI | {"mask": "radial"}},
        ),
        (
            {"modality": "ct"},
            {**VOLUME, "method": "projection", "settings": {"relaxation": 1.0, "snr": 0.16}, "noise": 0.0,
             "options": {"angles": 30, "arc": 180.0, "metal": None}},
        ),
        (GIVEN | {"white": 1e-9}, {**PIGDM, **VOLUME, "noise": 0.02, "options": {}, "white": 1e-9}),
        (
            {"truth": "v.nii", "axis": "coronal", "window": "0,80", "slices": "2:9:3"},
            {**PIGDM, "noise": 0.02, "options": MRI, "white": None, "axis": "coronal", "window": (0.0, 80.0),
             "chosen": slice(2, 9, 3)},
        ),
    ],
)  # fmt: skip
def test_a_reconstruction_has_the_defaults_of_its_modality_and_method(given, expected):
    found = reconstruction(**given)
    shared = SHARED | {name: given[name] for name in SHARED if name in given}
    assert found == Reconstruction(**shared, modality=given.get("modality", "mri"), **expected)


@pytest.mark.parametrize(
    "make, given, said",
    [
        (restoration, {"truth": None}, "--input=IMAGES is needed, or --truth=IMAGES to be measured"),
        (reconstruction, {"truth": None}, "--input=FILE is needed, or --truth=FILE to be measured"),
        (restoration, {"options": {"factor": 2.0}}, "--factor=2.0 does nothing for --task=hdr"),
        (reconstruction, {"options": {"angles": 2}}, "--angles=2 does nothing for --modality=mri"),
        (reconstruction, GIVEN | {"options": {"coils": 2}}, "--coils=2 does nothing with --input, which says itself"),
        (reconstruction, {"modality": "pet"}, "--modality='pet' is unknown: choose from "),
        (restoration, {"method": "ddrm", "overrides": [("sampling.sampler", "heun")]}, "--config.sampling.sampler=heun"),
        (reconstruction, {"modality": "ct", "overrides": [("sampling.evaluations", "9")]}, "--config.sampling.evaluations="),
        (restoration, GIVEN | {"method": "ddnm", "noise": 0.1}, "--noise=0.1 does nothing: --method=ddnm"),
        (reconstruction, GIVEN | {"method": "ddnm", "noise": 0.1}, "--noise=0.1 does nothing: --method=ddnm"),
        (restoration, {"noise": 0.1, "noise_kind": "poisson", "peak": 9.0}, "--noise=0.1 does nothing with --noise_"),
        (restoration, {"peak": 9.0}, "--peak=9.0 does nothing without --noise_kind=poisson"),
        (reconstruction, {"white": 9.0}, "--white=9.0 does nothing: --truth says what is white"),
        (reconstruction, {"white": 9.0, "input": "y.npz"}, "--white=9.0 does nothing: --truth says what is white"),
        *((reconstruction, GIVEN | {"white": value}, f"--white={value}: must be more than 0")
          for value in (0.0, -1.0, np.inf, np.nan)),
        (reconstruction, {"slices": "1:2"}, "--slices=1:2 does nothing: it is for a --truth that is a volume"),
        (reconstruction, {"truth": "v.nii", "axis": "up"}, "--axis='up' is unknown: choose from "),
    ],
)  # fmt: skip
def test_requests_that_cannot_be_are_refused_before_a_model_is_opened(make, given, said):
    with pytest.raises(UserError) as error:
        make(**given)
    assert str(error.value).startswith(said)


@pytest.mark.parametrize("shape, last", [((2, 5), 19), ((5, 2), 19), ((3, 3), 11)])
def test_so_many_spokes_are_tried_as_cross_the_longer_side_four_times(shape, last):
    tried = []
    mask = scanners._turned(lambda shape, count: tried.append(count) or np.zeros(shape, bool))(
        shape, {"acceleration": 2.0}
    )
    assert tried == list(range(1, last + 1)) and np.asarray(mask).all() and mask.shape == shape


@pytest.mark.parametrize("asks", ["products", "many products", "pseudo_inverse", "normal_solve", "singular_values"])
@pytest.mark.parametrize("side", [4, 32, 33])
def test_a_decomposition_serves_what_has_no_closed_form_and_many_products_of_small_images(monkeypatch, asks, side):
    """CT has a pseudo-inverse of its own, several coils a solve; many products of k-space are faster as they are."""
    shape = (side, side, 1)
    ct = scanners.scan_problem("ct", inverse.CompletedRadon(event_shape=shape, angles=np.zeros(2, np.float32)), 0.1)
    maps, mask = np.ones((2, side, side, 2), np.float32), np.ones((side, side), np.float32)
    mri = scanners.scan_problem(
        "mri", inverse.MultiCoilFourierSampling(event_shape=shape, mask=mask, coil_maps=maps), 0.1
    )
    served = {
        "products": (False, False), "many products": (side <= 32, False), "pseudo_inverse": (False, True),
        "normal_solve": (True, True), "singular_values": (True, True),
    }  # fmt: skip
    assert (scanners._is_served(ct, asks), scanners._is_served(mri, asks)) == served[asks]


def test_what_has_closed_singular_values_is_checked_as_it_is():
    """k-space of one coil; what may be decomposed is checked as if it had been."""
    shape, mask = (4, 4, 1), np.ones((4, 4), np.float32)
    one = scanners.scan_problem("mri", inverse.FourierSampling(event_shape=shape, mask=mask), 0.1)
    assert scanners.for_checks(one) is one and scanners.for_methods(one, "singular_values") == (one, 1.0)
    ct = scanners.scan_problem("ct", inverse.CompletedRadon(event_shape=shape, angles=np.zeros(2, np.float32)), 0.1)
    assert type(scanners.for_checks(ct).measurement) is inverse.Decomposed
