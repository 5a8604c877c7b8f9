"""Files of published weights: read without running code, and loaded whole or not at all."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import safetensors.torch
import torch
from timm.models import adapt_input_conv
from torch import Tensor, nn

from circlet.errors import CircletError

_NAMED = 5  # how many names an error lists


def read_weights(path: str) -> dict[str, Tensor]:
    """The tensors of a file by name, on the CPU.

    Args:
        path: A .safetensors file, or what torch.save wrote of a state_dict (.pth, .pt).

    Raises:
        CircletError: There is no such file, it can't be read, or it holds something else.
    """
    if not Path(path).is_file():
        raise CircletError(f"there is no file of weights {path!r}: weights is the path of a local file")
    try:
        if path.endswith(".safetensors"):
            return safetensors.torch.load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file fails in many ways, by what is damaged
        raise CircletError(f"the weights {path!r} can't be read: {error}") from error
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        held = f"the keys {listed(map(str, content))}" if isinstance(content, dict) else str(type(content))
        raise CircletError(
            f"the weights {path!r} are not tensors by name: the file holds {held}. Save the state_dict "
            f"alone: torch.save(model.state_dict(), path)"
        )
    return content


def load_weights(
    module: nn.Module,
    weights: dict[str, Tensor],
    source: str,
    *,
    left_out: Sequence[str] = (),
    first_layers: Sequence[str] = (),
    in_channels: int = 3,
) -> None:
    """Load all the weights of a module.

    Args:
        module: What they are for.
        weights: Tensors in the names of the module. Counters of batches (num_batches_tracked) may be missing,
            as PyTorch before 0.4.1 had none, and vectors may have a first dimension of 1, as it had then.
        source: Where they come from, for errors.
        left_out: Beginnings of the names that are not needed: the classifier.
        first_layers: Convolutions that see the pictures. Where they are for 3 colours and in_channels is
            another number, the colours are summed (1) or repeated (more), as timm does.
        in_channels: Channels of the pictures that the module takes.

    Raises:
        CircletError: Names are missing or unknown, or a shape does not fit.
    """
    weights = {name: value for name, value in weights.items() if not name.startswith(tuple(left_out))}
    wanted = module.state_dict()
    missing = [name for name in wanted if name not in weights and not name.endswith("num_batches_tracked")]
    unknown = [name for name in weights if name not in wanted]
    if missing or unknown:
        raise CircletError(
            f"the weights {source!r} do not fit the model: {len(missing)} of its {len(wanted)} tensors not "
            f"in the file{_colon(missing)}, {len(unknown)} of the file's {len(weights)} not in the "
            f"model{_colon(unknown)}"
        )
    for layer in first_layers:
        key = f"{layer}.weight"
        if in_channels != 3 and weights[key].dim() == 4 and weights[key].shape[1] == 3:
            weights[key] = adapt_input_conv(in_channels, weights[key])
    weights = {
        name: value[0] if value.dim() == 2 and len(value) == 1 and wanted[name].dim() == 1 else value
        for name, value in weights.items()
    }
    others = [
        f"{name} {tuple(value.shape)} instead of {tuple(wanted[name].shape)}"
        for name, value in weights.items()
        if value.shape != wanted[name].shape
    ]
    if others:
        raise CircletError(
            f"the weights {source!r} do not fit the model: {len(others)} of its {len(wanted)} tensors in "
            f"another shape: {listed(others)}"
        )
    module.load_state_dict(weights, strict=False)  # the names were compared above


def listed(names: Iterable[str]) -> str:
    """The first few names, for an error."""
    names = list(names)
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")


def _colon(names: Sequence[str]) -> str:
    return f": {listed(names)}" if names else ""
