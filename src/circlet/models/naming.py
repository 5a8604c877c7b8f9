"""Published names of weights in timm's names, by rules that are written down."""

from typing import Any

from torch import Tensor

from circlet.errors import CircletError
from circlet.models.weights import listed

# The depthwise block of stage 0 has no expansion, so its second convolution is timm's conv_pw.
_PLAIN = {"depthwise": "conv_dw", "first": "bn1", "project": "conv_pw", "last": "bn2"}
_EXPANDED = {
    "expand": "conv_pw",
    "expanded": "bn1",
    "depthwise": "conv_dw",
    "first": "bn2",
    "project": "conv_pwl",
    "last": "bn3",
}

# What lukemelas/EfficientNet-PyTorch, efficientnet_pytorch/model.py, calls the layers of a block.
_LUKEMELAS_BLOCK = {
    "_expand_conv": "expand",
    "_bn0": "expanded",
    "_depthwise_conv": "depthwise",
    "_bn1": "first",
    "_project_conv": "project",
    "_bn2": "last",
}
_LUKEMELAS_OUTER = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}

# Places in the nn.Sequential of a block, in tonylins/pytorch-mobilenet-v2, which numbers the activations too,
# and in torchvision/models/mobilenetv2.py, which groups convolution, normalisation and activation.
_FLAT_PLAIN = {"0": "depthwise", "1": "first", "3": "project", "4": "last"}
_FLAT_EXPANDED = {
    "0": "expand",
    "1": "expanded",
    "3": "depthwise",
    "4": "first",
    "6": "project",
    "7": "last",
}
_GROUPED_PLAIN = {"0.0": "depthwise", "0.1": "first", "1": "project", "2": "last"}
_GROUPED_EXPANDED = {
    "0.0": "expand",
    "0.1": "expanded",
    "1.0": "depthwise",
    "1.1": "first",
    "2": "project",
    "3": "last",
}

_EFFICIENTNET_LITE = tuple(f"tf_efficientnet_lite{size}" for size in range(5))
_MOBILENET = ("mobilenetv2_100",)


def in_timm_names(weights: dict[str, Tensor], model: Any, name: str, source: str) -> dict[str, Tensor]:
    """Weights in timm's names; two published namings are known, and left without their classifier.

    - EfficientNet-Lite of lukemelas/EfficientNet-PyTorch (a file with `_conv_stem.weight`), for timm's
      tf_efficientnet_lite0 to 4. These weights come from TensorFlow, whose padding and whose epsilon of the
      batch normalisations (1e-3) timm's models without `tf_` do not have.
    - MobileNetV2 of torchvision, and of tonylins/pytorch-mobilenet-v2 before it (a file with
      `features.0.0.weight` and `features.18.0.weight`), for timm's mobilenetv2_100.

    Args:
        weights: Tensors by name; a file of neither naming is returned as it is.
        model: timm's.
        name: timm's name of it.
        source: Where the weights come from, for errors.

    Raises:
        CircletError: The naming belongs to another model, or one of its names follows no rule.
    """
    if "_conv_stem.weight" in weights:
        _check_model(name, _EFFICIENTNET_LITE, "EfficientNet-Lite of lukemelas/EfficientNet-PyTorch", source)
        return _translated(weights, "_fc.", _lukemelas_names(model), source)
    if "features.0.0.weight" in weights and "features.18.0.weight" in weights:
        _check_model(name, _MOBILENET, "MobileNetV2 of torchvision", source)
        grouped = "features.1.conv.0.0.weight" in weights
        return _translated(weights, "classifier.", _mobilenet_names(model, grouped), source)
    return weights


def _check_model(name: str, fitting: tuple[str, ...], naming: str, source: str) -> None:
    if name not in fitting:
        raise CircletError(
            f"the weights {source!r} have the names of {naming}, which fit the backbone "
            f"{', '.join(fitting)}, but this one is {name!r}"
        )


def _lukemelas_names(model: Any) -> dict[str, str]:
    """Each layer's published name and timm's."""
    names = dict(_LUKEMELAS_OUTER)
    for number, (place, layers) in enumerate(_blocks(model)):
        for published, role in _LUKEMELAS_BLOCK.items():
            if role in layers:
                names[f"_blocks.{number}.{published}"] = f"blocks.{place}.{layers[role]}"
    return names


def _mobilenet_names(model: Any, grouped: bool) -> dict[str, str]:
    names = {"features.0.0": "conv_stem", "features.0.1": "bn1"}
    names |= {"features.18.0": "conv_head", "features.18.1": "bn2"}
    for number, (place, layers) in enumerate(_blocks(model), start=1):
        if layers is _PLAIN:
            roles = _GROUPED_PLAIN if grouped else _FLAT_PLAIN
        else:
            roles = _GROUPED_EXPANDED if grouped else _FLAT_EXPANDED
        for published, role in roles.items():
            names[f"features.{number}.conv.{published}"] = f"blocks.{place}.{layers[role]}"
    return names


def _blocks(model: Any) -> list[tuple[str, dict[str, str]]]:
    """timm's blocks in order: where each is ("0.0", "1.0", "1.1", ...), and its layers' names by role."""
    return [
        (f"{stage}.{block}", _PLAIN if stage == 0 else _EXPANDED)
        for stage, blocks in enumerate(model.blocks)
        for block in range(len(blocks))
    ]


def _translated(
    weights: dict[str, Tensor], classifier: str, names: dict[str, str], source: str
) -> dict[str, Tensor]:
    translated, strange = {}, []
    for name, value in weights.items():
        if name.startswith(classifier):
            continue
        layer, _, tensor = name.rpartition(".")
        if layer in names:
            translated[f"{names[layer]}.{tensor}"] = value
        else:
            strange.append(name)
    if strange:
        raise CircletError(
            f"the weights {source!r} do not fit the model: {len(strange)} of their {len(weights)} names have "
            f"no counterpart in it: {listed(strange)}"
        )
    return translated
