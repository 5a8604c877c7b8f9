"""Recall@1 against minutes of training on Omniglot, for the losses of the catalogue.

    python benchmarks/omniglot_losses.py --data FOLDER --output runs/omniglot_losses

Each loss is trained by the recipe `omniglot` (pairs) or `omniglot_classes` with the same network,
augmentation, pictures in a batch, steps and seeds, on one thread each, and measured on the evaluation
characters. Scales and margins are each loss's own; they
were chosen on held-out background alphabets (--data.test background), see docs/omniglot.md. Runs that exist
are kept, so that the command can be interrupted and given again.

Writes a table (table.md), the figures of each seed (figures.json) and a plot (curves.png) into the output
folder. The minutes are processor time of the training thread, which other jobs on the machine disturb less
than the time on the clock.
"""

import argparse
import json
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import altair as alt

# name: (loss, its settings, references)
LOSSES: dict[str, tuple[str, dict[str, Any], str]] = {
    "CircleLoss, pairs": ("CircleLoss", {"margin": 0.4, "scale": 16}, "batch"),
    "TripletLoss, pairs": ("TripletLoss", {"margin": 0.2}, "batch"),
    "CircleLoss, classes": ("CircleLoss", {"margin": 0.25, "scale": 16}, "proxies"),
    "NormFaceLoss, classes": ("NormFaceLoss", {"scale": 16}, "proxies"),
    "CosFaceLoss, classes": ("CosFaceLoss", {"margin": 0.2, "scale": 16}, "proxies"),
    "ArcFaceLoss, classes": ("ArcFaceLoss", {"margin": 0.3, "scale": 16}, "proxies"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of Omniglot")
    parser.add_argument("--output", type=Path, default=Path("runs/omniglot_losses"))
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2, help="trainings at once, on one thread each")
    parser.add_argument("--precision", default="32-true", help="bf16-mixed is quicker where the CPU has it")
    parser.add_argument("--only", nargs="*", default=list(LOSSES), help="losses to run, by the table's names")
    given = parser.parse_args()

    # Seed by seed, so that an interrupted benchmark has every loss equally often.
    tasks = [(name, seed) for seed in range(given.seeds) for name in given.only]
    with ThreadPoolExecutor(given.jobs) as pool:
        for task in [pool.submit(run, name, seed, given) for name, seed in tasks]:
            task.result()
    summarise(given.output, given.only)


def run(name: str, seed: int, given: argparse.Namespace) -> None:
    """Train one loss with one seed, unless that was done."""
    folder = folder_of(given.output, name, seed)
    if (folder / "results.json").exists():
        return
    loss, settings, references = LOSSES[name]
    if (folder / "config.yaml").exists():
        command = ["train", str(folder)]
    else:
        recipe = "omniglot" if references == "batch" else "omniglot_classes"
        command = ["train", recipe, "--output", str(folder), "--data.root", given.data]
        command += ["--loss", json.dumps({"class_path": f"circlet.losses.{loss}", "init_args": settings})]
        command += ["--seed", str(seed), "--threads", "1", "--precision", given.precision]
        command += ["--optimizer.steps", str(given.steps), "--optimizer.warmup_steps", str(given.steps // 10)]
        command += ["--evaluation.every", str(-(-given.steps // 4))]
    with Path(f"{folder}.log").open("a") as log:
        subprocess.run([sys.executable, "-m", "circlet.cli", *command], check=True, stdout=log, stderr=log)


def folder_of(output: Path, name: str, seed: int) -> Path:
    output.mkdir(parents=True, exist_ok=True)
    return output / f"{name.replace(', ', '-').replace(' ', '-').replace('(', '').replace(')', '')}-{seed}"


def summarise(output: Path, names: list[str]) -> None:
    """Write table, figures and plot of all complete runs."""
    rows: list[dict[str, Any]] = []
    lines = ["| loss | settings | recall@1 | MAP@R | minutes | seeds |", "|---|---|---|---|---|---|"]
    for name in names:
        finals = []
        for folder in sorted(output.glob(folder_of(output, name, 0).name[:-1] + "*")):
            if not (folder / "results.json").exists():
                continue
            records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
            measured = [record for record in records if record["kind"] == "evaluation"]
            finals.append(measured[-1])
            rows += [
                {
                    "loss": name,
                    "seed": int(folder.name.rsplit("-", 1)[1]),
                    "step": record["step"],
                    "minutes": record["cpu_seconds"] / 60,
                    "recall at 1": record["recall_at"]["1"],
                    "MAP@R": record["map_at_r"],
                }
                for record in measured
            ]
        if finals:
            settings = ", ".join(f"{key} {value}" for key, value in LOSSES[name][1].items())
            columns = [spread([100 * record["recall_at"]["1"] for record in finals])]
            columns += [spread([100 * record["map_at_r"] for record in finals])]
            columns += [spread([record["cpu_seconds"] / 60 for record in finals], digits=1)]
            lines.append(f"| {name} | {settings} | {' | '.join(columns)} | {len(finals)} |")
    (output / "table.md").write_text("\n".join(lines) + "\n")
    (output / "figures.json").write_text(json.dumps(rows, indent=1) + "\n")
    print("\n".join(lines))
    points = [
        {
            "loss": name,
            **{
                key: statistics.mean(row[key] for row in rows if (row["loss"], row["step"]) == (name, step))
                for key in ("minutes", "recall at 1")
            },
        }
        for name, step in sorted({(row["loss"], row["step"]) for row in rows})
    ]
    chart = (
        alt.Chart(alt.Data(values=points))
        .mark_line(point=True)
        .encode(
            x=alt.X("minutes:Q", title="minutes on one core"),
            y=alt.Y("recall at 1:Q", title="recall@1 of unseen characters").axis(format=".0%"),
            color=alt.Color("loss:N", sort=names, title=None, legend=alt.Legend(labelLimit=300)),
        )
        .properties(width=620, height=400, title=f"Omniglot, mean of {len({r['seed'] for r in rows})} seeds")
    )
    chart.save(output / "curves.png", scale_factor=2)


def spread(values: list[float], digits: int = 2) -> str:
    """Mean and standard deviation over the seeds."""
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{statistics.mean(values):.{digits}f} ± {statistics.stdev(values):.{digits}f}"


if __name__ == "__main__":
    main()
