"""insightface's networks: names, counts and numbers of recognition/arcface_torch/backbones/iresnet.py."""

from pathlib import Path

import pytest
import torch

from circlet.errors import CircletError
from circlet.models import Embedder, FaceNeck, FlattenPooling, IResNet, LinearNeck, load_arcface_weights
from filled import filled, pictures


def face_embedder(depth: int = 18) -> Embedder:
    return Embedder(IResNet(depth), FlattenPooling(7, 7), FaceNeck(512))  # type: ignore[arg-type]


def in_published_names(embedder: Embedder) -> dict[str, torch.Tensor]:
    """Made by hand, and not by the rule under test."""
    backbone = dict(embedder.backbone.state_dict())
    linear, normalization = embedder.neck.linear, embedder.neck.normalization
    backbone |= {f"fc.{name}": value for name, value in linear.state_dict().items()}
    return backbone | {f"features.{name}": value for name, value in normalization.state_dict().items()}


def counted(blocks: tuple[int, ...]) -> int:
    """The parameters, by arithmetic."""
    total = 3 * 64 * 9 + 2 * 64 + 64  # the first convolution, its normalisation and its PReLU
    before = 64
    for width, depth in zip((64, 128, 256, 512), blocks, strict=True):
        total += before * width + 2 * width  # the shortcut
        for _ in range(depth):
            total += 2 * before + 9 * before * width + 2 * width + width + 9 * width * width + 2 * width
            before = width
    return total + 2 * 512 + (512 * 7 * 7 * 512 + 512) + 2 * 512


@pytest.mark.parametrize(
    ("depth", "blocks", "published"),
    [
        (18, (2, 2, 2, 2), 24_025_600),
        (34, (3, 4, 6, 3), 34_139_328),
        (50, (3, 4, 14, 3), 43_590_848),
        (100, (3, 13, 30, 3), 65_156_160),
    ],
)
def test_parameters_are_as_many_as_published(depth: int, blocks: tuple[int, ...], published: int) -> None:
    with torch.device("meta"):
        embedder = face_embedder(depth)
    assert sum(p.numel() for p in embedder.parameters()) == counted(blocks) == published
    # The scale of `features` is the only one that stays as it is.
    assert sum(p.numel() for p in embedder.parameters() if not p.requires_grad) == 512


def test_layers_are_named_as_published() -> None:
    shapes = {name: tuple(value.shape) for name, value in in_published_names(face_embedder(18)).items()}
    published = {
        "conv1.weight": (64, 3, 3, 3),
        "bn1.running_mean": (64,),
        "prelu.weight": (64,),
        "layer1.0.bn1.weight": (64,),
        "layer1.0.conv1.weight": (64, 64, 3, 3),
        "layer1.0.downsample.0.weight": (64, 64, 1, 1),
        "layer2.0.bn1.bias": (64,),
        "layer2.0.prelu.weight": (128,),
        "layer2.0.downsample.1.running_var": (128,),
        "layer4.1.conv2.weight": (512, 512, 3, 3),
        "layer4.1.bn3.weight": (512,),
        "bn2.weight": (512,),
        "fc.weight": (512, 25088),
        "fc.bias": (512,),
        "features.running_mean": (512,),
    }
    assert {name: shapes.get(name) for name in published} == published
    assert len(shapes) == 187


def test_a_published_file_gives_the_published_embedding(tmp_path: Path) -> None:
    path = tmp_path / "backbone.pth"
    embedder = face_embedder(18).eval()
    weights = filled(in_published_names(embedder))
    torch.save(weights, path)
    load_arcface_weights(embedder, str(path))
    with torch.no_grad():
        embeddings = embedder(pictures(112))
    # The same weights and pictures in the published code, iresnet18() at commit 04a433f.
    expected = torch.tensor([10.87451, 2.2703, 14.09994, -6.46148, 2.29988])
    torch.testing.assert_close(embeddings[1, :5], expected, atol=1e-3, rtol=0)
    # As a backbone alone it takes the same file, without what belongs to the neck.
    backbone = IResNet(18, weights=str(path)).eval()
    assert torch.equal(backbone.layer4[1].conv2.weight, weights["layer4.1.conv2.weight"])
    assert backbone(torch.zeros(1, 3, 64, 48)).shape == (1, 512, 4, 3)


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    path = tmp_path / "backbone.pth"
    torch.save(in_published_names(face_embedder(18)), path)
    said = r" 120 of its 331 tensors not .*: backbone\.layer1\.2\.bn1\.weight.*, 0 of the file's 187 not in"
    with pytest.raises(CircletError, match=said):
        load_arcface_weights(face_embedder(34), str(path))
    other_neck = Embedder(IResNet(18), FlattenPooling(7, 7), LinearNeck(512))
    with pytest.raises(CircletError, match=r"FaceNeck\(\)\), but this embedder has IResNet and LinearNeck"):
        load_arcface_weights(other_neck, str(path))
    with pytest.raises(CircletError, match="one of 18, 34, 50, 100, but got 101"):
        IResNet(101)  # type: ignore[arg-type]


def test_dropout_is_of_training_alone() -> None:
    backbone = IResNet(18, dropout=0.5)
    images = torch.rand(2, 3, 32, 32)
    assert (backbone.train()(images) == 0).float().mean() > 0.4
    assert (backbone.eval()(images) == 0).float().mean() < 0.1
