"""The page on losses: its code runs, and its list of losses is complete."""

import re
from pathlib import Path

import pytest
import torch

from circlet import losses

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "losses.md").read_text(encoding="utf-8")
CODE = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.mark.parametrize("code", CODE, ids=[f"block {number}" for number in range(1, len(CODE) + 1)])
def test_the_code_runs(code: str) -> None:
    names = {
        "embeddings": torch.randn(8, 512),
        "labels": torch.arange(4).repeat(2),
        "vectors": torch.randn(10, 512),
        "vector_labels": torch.arange(10),
    }
    exec(code, names)
    loss = names["loss"]
    assert loss.isfinite()
    assert loss > 0


def test_every_named_loss_boundary_and_objective_is_listed() -> None:
    assert len(CODE) == 3
    for name in set(losses.__all__) - {"Boundary", "Objective", "PairLoss", "cached_backward"}:
        assert re.search(rf"^\| `{name}\b", PAGE, flags=re.MULTILINE), name


def test_the_readme_names_every_loss() -> None:
    readme = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
    for name in losses.catalogue.__all__:
        assert re.search(rf"^\|.*`{name}\b", readme, flags=re.MULTILINE), name
