import warnings

import numpy as np
import pytest
import torch

from vdsm_bench.errors import ContractError
from vdsm_bench.evaluators.outputs import RenderedOutputs
from vdsm_bench.evaluators.pairs import joint_classes
from vdsm_bench.evaluators.pixels import PSNR_CEILING, Pixels, mse, psnr, ssim
from vdsm_bench.evaluators.suite import evaluate
from vdsm_bench.optional import import_with_torchvision
from vdsm_bench.significance import interval

SHAPE = (3, 2, 3, 24, 20)


@pytest.fixture
def clips():
    rng = torch.Generator().manual_seed(0)
    real = torch.rand(SHAPE, generator=rng)
    return real, (real + 0.2 * torch.randn(SHAPE, generator=rng)).clamp(0, 1)


@pytest.fixture(scope="module")
def reference():
    with warnings.catch_warnings():
        # torchmetrics imports pkg_resources on some machines, which warns; it is not under test
        warnings.simplefilter("ignore")
        return import_with_torchvision("torchmetrics.functional.image")


def test_ssim_agrees_with_torchmetrics_inside_the_frame(clips, reference):
    real, found = clips
    mine = ssim(real, found)
    for i in range(len(real)):
        _, full = reference.structural_similarity_index_measure(
            found[i].double(), real[i].double(), data_range=1.0, return_full_image=True
        )
        # theirs pads the frame; ours takes full windows only: the middle of their map
        theirs = full[..., 5:-5, 5:-5].mean().item()
        assert mine[i] == pytest.approx(theirs, abs=1e-9)


def test_psnr_agrees_with_torchmetrics(clips, reference):
    real, found = clips
    mine = psnr(mse(real, found))
    for i in range(len(real)):
        theirs = reference.peak_signal_noise_ratio(found[i], real[i], data_range=1.0)
        assert mine[i] == pytest.approx(theirs.item(), abs=1e-5)


def test_equal_clips(clips):
    real, _ = clips
    assert mse(real, real).tolist() == [0.0] * 3
    assert psnr(mse(real, real)).tolist() == [PSNR_CEILING] * 3
    assert ssim(real, real) == pytest.approx([1.0] * 3)


def test_known_values():
    zero, one = torch.zeros(SHAPE), torch.ones(SHAPE)
    assert mse(zero, one).tolist() == [1.0] * 3
    assert psnr(np.array([1.0, 0.01])) == pytest.approx([0.0, 20.0])
    assert (ssim(zero, one) < 0.001).all()


def test_small_frames_get_a_smaller_window():
    real = torch.rand(2, 1, 1, 8, 9)
    assert ssim(real, real) == pytest.approx([1.0, 1.0])
    assert (ssim(real, 1 - real) < 0.5).all()


@pytest.mark.parametrize("bad", [torch.full(SHAPE, torch.nan), torch.full(SHAPE, 1.5)])
def test_nan_and_out_of_range_are_refused(bad):
    with pytest.raises(ContractError, match=r"\[0, 1\]"):
        mse(torch.zeros(SHAPE), bad)


def test_unequal_shapes_are_refused():
    with pytest.raises(ContractError, match="shape"):
        ssim(torch.zeros(SHAPE), torch.zeros(2, 2, 3, 24, 20))


def test_columns_are_means_over_all_clips_with_an_interval_over_identities(request_):
    test = request_.test
    subject = RenderedOutputs(reconstructions=lambda rows: test.clips(rows) / 2)
    scores = evaluate(subject, None, request_, {"pixels": Pixels()}).scores
    real = test.clips(np.arange(len(test)))
    errors = mse(real, real / 2)
    who = joint_classes(test.labels, request_.factors, "static")
    for column, values in (
        ("mse", errors),
        ("psnr", psnr(errors)),
        ("ssim", ssim(real, real / 2)),
    ):
        assert scores[column].value == pytest.approx(values.mean())
        assert scores[column].by_identity == pytest.approx(interval(values, who))
