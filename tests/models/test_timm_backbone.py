"""timm's models as backbones: shapes, the fine last stage, gradient checkpointing, stochastic depth."""

import pytest
import torch

from circlet.errors import CircletError
from circlet.models import Embedder, LinearNeck, TimmBackbone


def with_all_branches(backbone: TimmBackbone) -> TimmBackbone:
    """timm begins with residual branches that give nothing: their last scale is 0."""
    for layer in backbone.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            torch.nn.init.ones_(layer.weight)
    return backbone


@pytest.mark.parametrize(
    "name", ["resnet18", "mobilenetv3_small_050", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"]
)
def test_any_timm_model_becomes_an_embedder(name: str) -> None:
    embedder = Embedder(TimmBackbone(name), neck=LinearNeck(16)).eval()
    with torch.no_grad():
        assert embedder(torch.rand(2, 3, 224, 224)).shape == (2, 16)


def test_timm_backbone_takes_grey_pictures() -> None:
    assert TimmBackbone("resnet18", in_channels=1)(torch.rand(1, 1, 64, 64)).shape == (1, 512, 2, 2)


def test_unknown_backbone_names_near_ones() -> None:
    with pytest.raises(CircletError, match=r"'resnet5'.*resnet50"):
        TimmBackbone("resnet5")


@pytest.mark.parametrize("name", ["resnet18", "resnet26d", "resnetblur18"])
def test_last_stride_1_makes_the_map_twice_as_fine(name: str) -> None:
    images = torch.rand(1, 3, 64, 32)
    coarse, fine = TimmBackbone(name).eval(), TimmBackbone(name, last_stride=1).eval()
    assert coarse(images).shape[2:] == (2, 1)
    assert fine(images).shape[2:] == (4, 2)
    # The weights are those of the published model.
    assert [(key, value.shape) for key, value in fine.state_dict().items()] == [
        (key, value.shape) for key, value in coarse.state_dict().items()
    ]


def test_last_stride_1_does_not_dilate() -> None:
    coarse = with_all_branches(TimmBackbone("resnet18")).eval()
    fine = TimmBackbone("resnet18", last_stride=1).eval()
    fine.load_state_dict(coarse.state_dict())
    stage = coarse.model.layer4
    features = torch.rand(1, 256, 4, 4)
    convolution, shortcut = stage[0].conv1, stage[0].downsample
    inner = torch.nn.functional.conv2d(features, convolution.weight, padding=1)  # stride 1, dilation 1
    inner = stage[0].bn2(stage[0].conv2(stage[0].bn1(inner).relu()))
    short = shortcut[1](torch.nn.functional.conv2d(features, shortcut[0].weight))
    expected = stage[1]((inner + short).relu())
    torch.testing.assert_close(fine.model.layer4(features), expected)


def test_last_stride_1_is_refused_where_there_is_no_such_stage() -> None:
    with pytest.raises(CircletError, match=r"ResNet.*'mobilenetv3_small_050' is of class MobileNetV3"):
        TimmBackbone("mobilenetv3_small_050", last_stride=1)


def test_gradient_checkpointing_gives_the_same_gradients() -> None:
    plain = with_all_branches(TimmBackbone("resnet18"))
    checkpointed = TimmBackbone("resnet18", gradient_checkpointing=True)
    checkpointed.load_state_dict(plain.state_dict())
    images = torch.rand(2, 3, 64, 64)
    for backbone in (plain, checkpointed):
        backbone(images).square().mean().backward()
    for (name, one), other in zip(plain.named_parameters(), checkpointed.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, msg=name)


def test_gradient_checkpointing_is_refused_where_timm_has_none() -> None:
    with pytest.raises(CircletError, match=r"'selecsls42' has no gradient checkpointing"):
        TimmBackbone("selecsls42", gradient_checkpointing=True)


def test_drop_path_lets_samples_pass_by_in_training_alone() -> None:
    torch.manual_seed(0)
    backbone = with_all_branches(TimmBackbone("resnet18", drop_path=0.9))
    images = torch.rand(1, 3, 64, 64).expand(8, -1, -1, -1)
    assert len(backbone.train()(images).flatten(1).unique(dim=0)) > 1
    assert len(backbone.eval()(images).flatten(1).unique(dim=0)) == 1


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("resnet18", {"drop_path": 1.0}, "drop_path is a probability, at least 0 and below 1, but got 1.0"),
        ("vgg11", {"drop_path": 0.1}, "'vgg11' has no stochastic depth: set drop_path to 0"),
        ("resnet18", {"pretrained": True, "weights": "a.pth"}, "choose one of the two"),
    ],
)
def test_arguments_that_do_not_fit(name: str, options: dict[str, object], said: str) -> None:
    with pytest.raises(CircletError, match=said):
        TimmBackbone(name, **options)  # type: ignore[arg-type]
