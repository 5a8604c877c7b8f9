"""BN-Inception: names, counts and numbers of Cadene/pretrained-models.pytorch, models/bninception.py."""

from pathlib import Path

import pytest
import torch

from circlet.errors import CircletError
from circlet.models import BNInception
from filled import filled, pictures


def test_parameters_and_layers_are_as_published() -> None:
    shapes = {name: tuple(value.shape) for name, value in BNInception().state_dict().items()}
    published = {
        "conv1_7x7_s2.weight": (64, 3, 7, 7),
        "conv1_7x7_s2.bias": (64,),
        "conv2_3x3_reduce.weight": (64, 64, 1, 1),
        "conv2_3x3_bn.running_mean": (192,),
        "inception_3a_1x1.weight": (64, 192, 1, 1),
        "inception_3a_double_3x3_1_bn.weight": (96,),
        "inception_3c_double_3x3_2.weight": (96, 96, 3, 3),
        "inception_4a_pool_proj.weight": (128, 576, 1, 1),
        "inception_4d_1x1.weight": (96, 608, 1, 1),
        "inception_4e_3x3.weight": (192, 128, 3, 3),
        "inception_5a_double_3x3_reduce.weight": (160, 1056, 1, 1),
        "inception_5b_pool_proj_bn.running_var": (128,),
    }
    assert {name: shapes.get(name) for name in published} == published
    # Counted in the published code, without last_linear.
    assert len(shapes) == 483
    assert sum(p.numel() for p in BNInception().parameters()) == 10_270_240


def test_a_published_file_gives_the_published_features(tmp_path: Path) -> None:
    path = tmp_path / "bn_inception.pth"
    weights = filled(BNInception().state_dict())
    # The published file is from before PyTorch 0.4: its normalisations have rows, and no counters.
    old = {name: value[None] if "_bn." in name else value for name, value in weights.items()}
    classifier = {"last_linear.weight": torch.zeros(1000, 1024), "last_linear.bias": torch.zeros(1000)}
    torch.save(old | classifier, path)
    backbone = BNInception(str(path)).eval()
    with torch.no_grad():
        features = backbone(pictures(67))
    assert features.shape == (2, 1024, 2, 2)
    # The same weights and pictures in the published code (pretrainedmodels 0.7.4): every 93rd channel's mean.
    expected = [0.49566, 0, 0, 0.19717, 0.38073, 0.07485, 0, 0.13127, 0.06213, 0.03826, 0, 0]
    torch.testing.assert_close(features[1].mean(dim=(1, 2))[::93], torch.tensor(expected), atol=2e-5, rtol=0)


@pytest.mark.parametrize(("size", "side"), [((64, 64), 2), ((75, 43), None)])
def test_odd_sides_are_no_error(size: tuple[int, int], side: int | None) -> None:
    features = BNInception(in_channels=1).eval()(torch.rand(1, 1, *size))
    assert features.shape[:2] == (1, 1024)
    assert side is None or features.shape[2:] == (side, side)


def test_a_file_of_another_network_is_refused_whole(tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    weights = BNInception().state_dict()
    del weights["conv2_3x3.bias"]
    torch.save(weights | {"fc.weight": torch.zeros(1)}, path)
    with pytest.raises(
        CircletError,
        match=r"1 of its 483 tensors not in the file: conv2_3x3\.bias, "
        r"1 of the file's 483 not in the model: fc",
    ):
        BNInception(str(path))
