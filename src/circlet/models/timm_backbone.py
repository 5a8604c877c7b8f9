"""Any image model of timm as a backbone."""

import difflib
from typing import Any, Literal, cast

import timm
from timm.models.resnet import ResNet
from torch import Tensor, nn

from circlet.errors import CircletError
from circlet.models.backbones import Backbone
from circlet.models.naming import in_timm_names
from circlet.models.weights import load_weights, read_weights


class TimmBackbone(Backbone):
    """Any image model of timm, without its classifier.

    Args:
        name: timm's name of the model, such as "resnet50".
        pretrained: Load timm's weights for that name (needs a network the first time).
        in_channels: 1 for grey pictures, 3 for colour.
        weights: A file with weights instead, .pth, .pt or .safetensors: in timm's names, or, for
            "tf_efficientnet_lite0" to 4 and "mobilenetv2_100", in the names that `naming.in_timm_names`
            translates. Its classifier is left out.
        last_stride: 1 leaves the last stage of a ResNet as fine as the one before, without dilation: twice
            the height and width, as re-identification has it (Sun et al., ECCV 2018; Luo et al., CVPRW 2019).
            For timm's class ResNet: resnet, resnext, wide_resnet, seresnet, ecaresnet and their kin.
        drop_path: Stochastic depth: the probability that a sample passes by the last block; it rises
            linearly from 0 at the first one.
        gradient_checkpointing: Less memory for a second forward pass. The running statistics of batch
            normalisations then move twice in a step.

    Raises:
        CircletError: timm knows no such model, it gives no map of features, its weights can't be had or do
            not fit, or it does not have what an argument asks for.
    """

    def __init__(
        self,
        name: str,
        pretrained: bool = False,
        in_channels: int = 3,
        *,
        weights: str | None = None,
        last_stride: Literal[1, 2] = 2,
        drop_path: float = 0.0,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        _check_arguments(name, pretrained, weights, drop_path)
        self.model: Any = _model(name, pretrained, in_channels, drop_path)
        self.in_channels = in_channels
        self.out_channels = cast(int, self.model.num_features)
        if weights is not None:
            _load(self.model, name, weights, in_channels)
        if last_stride == 1:
            _keep_last_stage_fine(self.model, name)
        if gradient_checkpointing:
            _checkpoint_gradients(self.model, name)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.model.forward_features(images)
        if features.dim() == 4 and features.shape[1] != self.out_channels:
            return features.permute(0, 3, 1, 2)  # some of timm's transformers keep channels last
        if features.dim() == 3:
            return features.transpose(1, 2).unsqueeze(3)  # tokens: (batch, tokens, channels)
        return features


def _check_arguments(name: str, pretrained: bool, weights: str | None, drop_path: float) -> None:
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        raise CircletError(
            f"unknown backbone {name!r}: timm {timm.__version__} has no model of this name{hint} "
            f"`python -c \"import timm; print(timm.list_models('*resnet*'))\"` lists what there is"
        )
    if pretrained and weights is not None:
        raise CircletError(
            f"backbone {name!r} has pretrained = true and weights = {weights!r}: choose one of the two"
        )
    if not 0 <= drop_path < 1:
        raise CircletError(f"drop_path is a probability, at least 0 and below 1, but got {drop_path}")


def _model(name: str, pretrained: bool, in_channels: int, drop_path: float) -> nn.Module:
    # Some models of timm know no such argument: it is handed on only where it is asked for.
    options: dict[str, Any] = {"drop_path_rate": drop_path} if drop_path > 0 else {}
    try:
        model: nn.Module = timm.create_model(
            name, pretrained=pretrained, in_chans=in_channels, num_classes=0, global_pool="", **options
        )
    except (OSError, RuntimeError) as error:
        if not pretrained:
            raise
        raise CircletError(
            f"the pretrained weights of {name!r} could not be loaded: {str(error).rstrip('.')}. "
            f"Give a file of weights instead (pretrained false, weights FILE), or run once where the network "
            f"reaches timm's weights"
        ) from error
    except TypeError as error:
        if "drop_path_rate" not in str(error):
            raise
        raise CircletError(f"backbone {name!r} has no stochastic depth: set drop_path to 0") from error
    return model


def _load(model: Any, name: str, path: str, in_channels: int) -> None:
    weights = in_timm_names(read_weights(path), model, name, path)
    settings = model.pretrained_cfg
    load_weights(
        model,
        weights,
        path,
        left_out=tuple(f"{layer}." for layer in _names(settings.get("classifier"))),
        first_layers=_names(settings.get("first_conv")),
        in_channels=in_channels,
    )


def _names(setting: str | tuple[str, ...] | None) -> tuple[str, ...]:
    if setting is None:
        return ()
    return (setting,) if isinstance(setting, str) else tuple(setting)


def _keep_last_stage_fine(model: nn.Module, name: str) -> None:
    if not isinstance(model, ResNet):
        raise CircletError(
            f"last_stride 1 is for timm's class ResNet (resnet, resnext, wide_resnet, seresnet, ...), but "
            f"backbone  {name!r} is of class {type(model).__name__}: leave last_stride at 2"
        )
    last_stage: Any = model.layer4
    for parent in list(last_stage[0].modules()):
        for child_name, child in parent.named_children():
            if isinstance(child, nn.Conv2d):
                child.stride = (1, 1)
            # What averages or blurs on the way down has nothing left to do. A mean over the whole map, that
            # of a squeeze-and-excitation, is no such pooling.
            elif getattr(child, "stride", 1) in (2, (2, 2)):
                setattr(parent, child_name, nn.Identity())


def _checkpoint_gradients(model: Any, name: str) -> None:
    try:
        model.set_grad_checkpointing(True)
    except (AssertionError, AttributeError) as error:
        raise CircletError(
            f"backbone {name!r} has no gradient checkpointing in timm {timm.__version__}: set "
            f"gradient_checkpointing to false, or take a smaller batch.chunk"
        ) from error
