"""The multiple granularity network, against torchvision's ResNet-50 with the strides of the paper."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet50

from circlet.errors import CircletError
from circlet.models import MGN, BNNeck, Embedder, IdentityNeck, PartReduction


def torchvision_map(resnet: nn.Module, images: Tensor, last_stride: int) -> Tensor:
    for convolution in (resnet.layer4[0].conv2, resnet.layer4[0].downsample[0]):
        convolution.stride = (last_stride, last_stride)
    return nn.Sequential(*list(resnet.children())[:-2])(images)


def test_each_branch_is_a_resnet50_and_sees_its_strips(tmp_path: Path) -> None:
    resnet = resnet50().eval()
    path = tmp_path / "resnet50.pth"
    torch.save(resnet.state_dict(), path)  # timm's names of resnet50 are torchvision's
    backbone = MGN(weights=str(path)).eval()
    images = torch.rand(1, 3, 96, 32)
    with torch.no_grad():
        parts = backbone(images)
        coarse, fine = (torchvision_map(resnet, images, stride) for stride in (2, 1))
    assert (coarse.shape[2], fine.shape[2]) == (3, 6)
    wholes = [coarse, fine, *fine.chunk(2, dim=2), fine, *fine.chunk(3, dim=2)]
    assert parts.shape == (1, 2048, 8, 1)
    expected = torch.stack([whole.amax(dim=(2, 3)) for whole in wholes], dim=2)
    torch.testing.assert_close(parts[..., 0], expected)

    stem = [resnet.conv1, resnet.bn1, resnet.layer1, resnet.layer2, resnet.layer3[0]]
    branch = [resnet.layer3[1:], resnet.layer4]
    counts = [sum(p.numel() for layer in part for p in layer.parameters()) for part in (stem, branch)]
    assert sum(p.numel() for p in backbone.parameters()) == counts[0] + 3 * counts[1] == 64_609_344


def test_eight_parts_of_256_are_one_embedding() -> None:
    reduction = PartReduction()
    assert sum(p.numel() for p in reduction.parameters()) == 8 * (2048 * 256 + 2 * 256)
    parts = torch.randn(4, 2048, 8, 1)
    vectors = reduction(parts)
    assert vectors.shape == (4, reduction.out_channels(2048)) == (4, 2048)
    assert vectors.min() == 0
    # A place has an effect on its own numbers alone.
    changed = parts.clone()
    changed[:, :, 3] = torch.randn(4, 2048, 1)
    differs = (reduction(changed) != vectors).any(dim=0).reshape(8, 256).any(dim=1)
    assert differs.tolist() == [place == 3 for place in range(8)]


def test_backbone_and_head_are_told_apart() -> None:
    with torch.device("meta"):
        plain = Embedder(MGN(), PartReduction(), IdentityNeck())
        necked = Embedder(MGN(), PartReduction(channels=64), BNNeck())
    assert (plain.embedding_dim, necked.embedding_dim) == (2048, 512)
    assert sum(p.numel() for p in plain.backbone_parameters()) == 64_609_344
    assert sum(p.numel() for p in plain.head_parameters()) == 4_198_400


def test_reductions_that_do_not_fit() -> None:
    with pytest.raises(CircletError, match="at least 1, but got 0, 256 and 2048"):
        PartReduction(parts=0)
    with pytest.raises(CircletError, match="in_channels = 8, but the backbone gives 2048 channels"):
        PartReduction(in_channels=8).out_channels(2048)
    with pytest.raises(CircletError, match="parts = 6, but the map has 8 places"):
        PartReduction(parts=6)(torch.rand(2, 2048, 8, 1))
