"""The page on large batches: its code runs and does what it says."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from circlet import losses, references
from circlet.cli import main

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "large_batches.md").read_text(encoding="utf-8")
CODE = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
RECIPE = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.mark.parametrize("code", CODE, ids=[f"block {number}" for number in range(1, len(CODE) + 1)])
def test_the_code_runs(code: str) -> None:
    torch.manual_seed(0)
    network = torch.nn.Linear(20, 512)
    names: dict[str, Any] = {
        "losses": losses,
        "network": network,
        "optimizer": torch.optim.SGD(network.parameters(), lr=0.1),
        "images": torch.randn(160, 20),
        "labels": torch.arange(40).repeat(4),
        "criterion": losses.CircleLoss(),
        "memory": references.Memory(),
    }
    before = network.weight.detach().clone()
    exec(code, names)
    assert names["loss"].isfinite()
    assert names["loss"] > 0
    if "optimizer" in code:
        assert not torch.equal(network.weight, before)
    if "memory" in code:
        assert names["memory"].count == 160


def test_there_are_four_blocks_and_a_recipe() -> None:
    assert (len(CODE), len(RECIPE)) == (4, 1)


def test_the_recipe_is_one(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    settings = yaml.safe_load(RECIPE[0])
    options = [
        option
        for section, values in settings.items()
        for key, value in (values.items() if isinstance(values, dict) else [(None, values)])
        for option in (f"--{section}.{key}" if key else f"--{section}", str(value))
    ]
    assert main(["train", "folder", "--keys", *options]) == 0
    complete = yaml.safe_load(capfd.readouterr().out)
    for section, values in settings.items():
        assert complete[section] == values or values.items() <= complete[section].items()
