"""Peak memory of a step: that of the embeddings and their gradients, not of the pairs."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from Linux's /proc"
)

MEASURED = """
import sys
import torch
from circlet import losses, references

def resident(line):
    with open("/proc/self/status") as status:
        return next(int(row.split()[1]) for row in status if row.startswith(line)) / 1024

def step(count, dim, classes, kind):
    x = torch.randn(count, dim, requires_grad=True)
    labels = torch.randint(classes, (count,))
    proxies = references.Proxies(classes, dim) if kind != "batch" else None
    if kind == "frozen":
        proxies.requires_grad_(False)
    criterion = losses.TripletLoss() if sys.argv[1] == "hard" else losses.CircleLoss()
    yield
    if kind == "measured":
        with torch.no_grad():
            criterion(x, labels, proxies)
    else:
        criterion(x, labels, proxies).backward()
    yield

count, dim, classes = (int(word) for word in sys.argv[2:5])
kind = sys.argv[5]
for _ in step(1500, 16, 40, kind): pass
going = step(count, dim, classes, kind)
next(going)
before = resident("VmRSS")
open("/proc/self/clear_refs", "w").write("5")
next(going)
print(resident("VmHWM") - before)
"""


def megabytes(*arguments: object) -> float:
    command = [sys.executable, "-c", MEASURED, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


# All similarities of 12,288 embeddings would be 576 MB in float32, and the dense formula holds a dozen such
# matrices; the embeddings themselves are 3 MB.
@pytest.mark.parametrize("loss", ["circle", "hard"])
@pytest.mark.parametrize("classes", [3072, 3])
def test_pairs_of_a_batch(loss: str, classes: int) -> None:
    assert megabytes(loss, 12288, 64, classes, "batch") < 60


# 128 x 100,000 similarities are 49 MB, and so is the gradient of the proxies.
def test_many_classes() -> None:
    assert megabytes("circle", 128, 128, 100_000, "learned") < 49 + 40


def test_many_classes_with_frozen_proxies() -> None:
    assert megabytes("circle", 128, 128, 100_000, "frozen") < 40


# Without gradients there is nothing to keep similarities for, although the proxies could have some.
def test_many_classes_that_are_only_measured() -> None:
    assert megabytes("circle", 128, 128, 100_000, "measured") < 25
