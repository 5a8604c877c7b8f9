"""What a training step on a CPU costs with glibc's own handling of freed memory, and with ours.

    python benchmarks/freed_memory.py

The network of the recipe omniglot_classes, a batch of 128 pictures of 64 px against 7,712 proxies, bfloat16
where the loss allows it. Processes of either kind take turns; printed is the time of a step of each, the
median of all steps and the fastest, and their ratio.
"""

import statistics
import subprocess
import sys
import time

import torch

from circlet.losses import CircleLoss
from circlet.models import ConvNet, Embedder, GridPooling, LinearNeck
from circlet.references import Proxies
from circlet.training.allocator import keep_freed_memory

TURNS, STEPS, WARMUP = 4, 30, 5


def main() -> None:
    seconds: dict[str, list[float]] = {"given back": [], "kept": []}
    for _ in range(TURNS):
        for kind, values in seconds.items():
            said = subprocess.run(
                [sys.executable, __file__, kind], check=True, capture_output=True, text=True
            )
            values += [float(value) for value in said.stdout.split()]
    for name, of in (("median", statistics.median), ("fastest", min)):
        back, kept = of(seconds["given back"]), of(seconds["kept"])
        print(
            f"{name:>8}: given back {1000 * back:.1f} ms, kept {1000 * kept:.1f} ms, ratio {back / kept:.2f}"
        )


def measure() -> None:
    """Print the seconds of each step."""
    embedder = Embedder(
        ConvNet(1, [16, 32, 64, 128], [1, 2, 2]), GridPooling(4), LinearNeck(256, normalization=True)
    ).to(memory_format=torch.channels_last)
    criterion, proxies = CircleLoss(margin=0.25, scale=16), Proxies(7712, 256)
    optimizer = torch.optim.AdamW([*embedder.parameters(), *proxies.parameters()])
    images = torch.randn(128, 1, 64, 64).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(7712, (128,))
    for step in range(WARMUP + STEPS):
        started = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16):
            loss = criterion(embedder(images), labels, proxies)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step >= WARMUP:
            print(time.perf_counter() - started)


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    else:
        if sys.argv[1] == "kept":
            keep_freed_memory()
        measure()
