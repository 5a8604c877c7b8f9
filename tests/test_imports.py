"""Imports point one way: cli, then training, analysis, report, then data, models. The library: torch."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "circlet"

# The library part, which people use in loops of their own: what of circlet each may import besides itself.
LIBRARY: dict[str, set[str]] = {
    "engine": set(),
    "references": {"engine"},
    "losses": {"engine", "references"},
    "metrics": set(),
}
# What a function of the library may import when it is called, if it is there.
OPTIONAL: dict[str, set[str]] = {"metrics": {"faiss", "sklearn"}}
ABOVE_DATA = {"training", "analysis", "evaluation", "report", "experiments", "serving", "cli"}


def imported_names(file: Path) -> set[str]:
    """Every module that a file imports, as a dotted name: circlet.losses for `from circlet import losses`."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    package = ["circlet", *file.relative_to(PACKAGE).parts[:-1]]
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names.update(
                {f"{module}.{alias.name}" for alias in node.names} if module == "circlet" else {module}
            )
    return names


def third_party(names: set[str]) -> set[str]:
    roots = {name.split(".")[0] for name in names}
    return roots - set(sys.stdlib_module_names) - {"circlet"}


def parts_of_circlet(names: set[str]) -> set[str]:
    return {name.split(".")[1] for name in names if name.startswith("circlet.")}


def files_of(part: str) -> list[Path]:
    files = sorted((PACKAGE / part).rglob("*.py"))
    assert files, f"src/circlet/{part} holds no module"
    return files


@pytest.mark.parametrize("part", LIBRARY)
def test_the_library_part_depends_on_torch_alone(part: str) -> None:
    for file in files_of(part):
        names = imported_names(file)
        assert third_party(names) <= {"torch"} | OPTIONAL.get(part, set()), file
        assert parts_of_circlet(names) <= LIBRARY[part] | {part}, file


@pytest.mark.parametrize("part", ["data", "models"])
def test_data_and_models_know_nothing_of_what_uses_them(part: str) -> None:
    for file in files_of(part):
        assert not parts_of_circlet(imported_names(file)) & ABOVE_DATA, file


@pytest.mark.parametrize("part", ["training", "analysis", "evaluation", "report", "experiments"])
def test_nothing_imports_the_commands(part: str) -> None:
    for file in files_of(part):
        assert "cli" not in parts_of_circlet(imported_names(file)), file


@pytest.mark.parametrize("part", ["training", "analysis", "evaluation", "report"])
def test_nothing_imports_the_experiments(part: str) -> None:
    """They are an extra, and stand above: an installation without Optuna trains and measures."""
    for file in files_of(part):
        assert "experiments" not in parts_of_circlet(imported_names(file)), file


def run(code: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def test_help_is_quick_as_the_commands_import_torch_late() -> None:
    heavy = {"torch", "torchvision", "timm", "lightning_fabric", "polars", "altair"}
    done = run(f"import sys, circlet.cli; print(sorted({heavy} & set(sys.modules)))")
    assert done.stdout.strip() == "[]", done.stderr


LIBRARY_WITH_TORCH_ALONE = """
import sys, importlib.abc
import torch

brought_by_torch = {name.split(".")[0] for name in sys.modules}

class OnlyTorch(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        root = name.split(".")[0]
        if root in brought_by_torch or root in sys.stdlib_module_names or root == "circlet":
            return None
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, OnlyTorch())
for name in ("timm", "polars", "altair"):
    try:
        __import__(name)
    except ModuleNotFoundError:
        continue
    raise AssertionError(f"{name} could be imported: this test blocks nothing")

from circlet import engine, losses, metrics, references
from circlet.losses import reference

proxies = references.Proxies(3, 4)
losses.CircleLoss()(torch.randn(2, 4), torch.tensor([0, 1]), proxies).backward()
print("the library works")
"""


def test_the_library_part_works_with_torch_alone() -> None:
    done = run(LIBRARY_WITH_TORCH_ALONE)
    assert done.stdout.strip() == "the library works", done.stderr


@pytest.mark.parametrize("name", ["optuna", "scipy"])
def test_experiments_name_the_extra_that_is_missing(name: str) -> None:
    done = run(
        f"import sys; sys.modules[{name!r}] = None; from circlet.cli import main; main(['sweep', 'x'])"
    )
    assert done.stderr.startswith("circlet sweep: comparisons and sweeps need Optuna and SciPy"), done.stderr
    assert "pip install 'circlet[experiments]'" in done.stderr
