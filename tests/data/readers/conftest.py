"""Small trees in the layouts of public data sets."""

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import torch
from torchvision.io import write_png

from circlet.data import DataSource
from circlet.errors import CircletError

Write = Callable[[Iterable[str]], None]


@pytest.fixture
def pictures(tmp_path: Path) -> Write:
    """Writes a small picture to each of these paths in tmp_path, as PNG whatever the name's ending says."""

    def write(names: Iterable[str]) -> None:
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            write_png(torch.zeros(3, 4, 4, dtype=torch.uint8), str(tmp_path / name))

    return write


def refusal(source: DataSource) -> str:
    """What the source says to a broken tree."""
    with pytest.raises(CircletError) as refused:
        source.manifest()
    return str(refused.value)
