"""Normalisations against their formulas, in the networks' own words."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from circlet.data import Normalization
from circlet.data.normalization import NormalizationName
from circlet.errors import CircletError

IMAGENET_MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
IMAGENET_STD = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
CAFFE_MEAN = torch.tensor([104.0, 117.0, 128.0])[:, None, None]


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("half", lambda x: 2 * x / 255 - 1),
        ("imagenet", lambda x: (x / 255 - IMAGENET_MEAN) / IMAGENET_STD),
        ("imagenet_caffe_bgr", lambda x: x[:, [2, 1, 0]] - CAFFE_MEAN),
        ("insightface", lambda x: x / 127.5 - 1),
        ("adaface", lambda x: (x[:, [2, 1, 0]] / 255 - 0.5) / 0.5),
        ("facex", lambda x: (x[:, [2, 1, 0]] - 127.5) / 128),
    ],
)
def test_named_ones(name: NormalizationName, formula: Callable[[Tensor], Tensor]) -> None:
    values = torch.randint(0, 256, (4, 3, 5, 6)).float()  # 0 to 255, red first
    normalization = Normalization.named(name)
    normalized = normalization(values / 255)
    torch.testing.assert_close(normalized, formula(values), atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(normalization.undone(normalized), values / 255, atol=1e-6, rtol=0)
    zero = normalization.zero().expand(1, 3, 2, 2)
    torch.testing.assert_close(normalization(zero), torch.zeros(1, 3, 2, 2), atol=1e-4, rtol=0)


def test_one_number_fits_grey_and_colour_and_one_for_each_channel_does_not() -> None:
    Normalization(0.3, 0.2).check_channels(1)
    Normalization.named("imagenet").check_channels(3)
    with pytest.raises(CircletError, match=r"mean \[0\.485, .* for 3 channels, .*\.channels = 1"):
        Normalization.named("imagenet").check_channels(1)
    with pytest.raises(CircletError, match=r"std \[0\.2, 0\.3\] is for 2 channels"):
        Normalization(0.5, (0.2, 0.3)).check_channels(3)


@pytest.mark.parametrize("std", [0.0, (0.2, 0.0, 0.2)])
def test_nothing_is_divided_by_zero(std: float | tuple[float, ...]) -> None:
    with pytest.raises(CircletError, match=r"std must be above 0"):
        Normalization(0.5, std)
