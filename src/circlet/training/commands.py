"""The commands train, evaluate, report and merge."""

import argparse
import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import torch

from circlet.errors import CircletError
from circlet.training.allocator import keep_freed_memory
from circlet.training.checkpoint_files import Checkpoints
from circlet.training.console import Console
from circlet.training.loop import train as run_training
from circlet.training.merging import merge as merge_checkpoint
from circlet.training.parts import make_parts
from circlet.training.processes import Processes
from circlet.training.recipe import ParsedRecipe, built_in_recipes, read_recipe, recipe_parser
from circlet.training.results import evaluate_run, report_run
from circlet.training.run import Run


def train(arguments: Sequence[str]) -> None:
    """circlet train RECIPE [--output FOLDER] [--key value ...]"""
    parser = argparse.ArgumentParser(
        prog="circlet train",
        description="Train an embedding by a recipe, or continue a run that was interrupted.",
        epilog="Any key of the recipe can be given: --loss.init_args.margin 0.4 --optimizer.steps 2000. "
        "`circlet train RECIPE --keys` prints them all. On several processes: torchrun --nproc-per-node 2 "
        "--no-python circlet train RECIPE --output FOLDER.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "recipe",
        nargs="?",
        help=f"a YAML file, a built-in recipe ({', '.join(built_in_recipes())}), or a run's folder",
    )
    parser.add_argument("--output", type=Path, help="folder of the run (default: runs/RECIPE-DATE-TIME)")
    parser.add_argument(
        "--keys", action="store_true", help="print the complete recipe; without one, the meaning of its keys"
    )
    given, overrides = parser.parse_known_args(arguments)
    if given.keys and given.recipe is None:
        recipe_parser().print_help()
        return
    if given.recipe is None:
        parser.error(
            "which recipe? A YAML file, a run's folder, or a built-in one: glyphs to try, folder for "
            "pictures of your own; --help lists them all"
        )
    if given.keys:
        print(read_recipe(given.recipe, overrides).text, end="")
        return
    processes = Processes.of_launcher()
    console = Console(processes.rank)
    with processes.telling_who_is_gone():
        run, parsed = _run_and_recipe(given, overrides, processes)
        recipe = parsed.build()
        if recipe.threads:
            torch.set_num_threads(recipe.threads)
        keep_freed_memory()
        parts = make_parts(recipe, processes)
        if processes.first and not run.config.exists():
            run.begin(parsed.text)  # only now, so that a mended recipe can be given the same folder again
        processes.wait()
        if not run.config.exists():
            raise CircletError(
                f"process {processes.rank} does not see {run.config}, which process 0 has written: all "
                f"machines need the run's folder in one file system; choose one with --output"
            )
        for note in parts.notes:
            console.say(note)
        console.say(f"run {run.folder}: {parts.describe()}")
        run_training(recipe, parts, run, console, processes)
        processes.leave()
    if not processes.first:
        return
    console.say("measuring the best checkpoint beside the network as it began and raw pixels")
    console.results(evaluate_run(run, console, parsed))
    console.say(f"report: {report_run(run, parsed)}")


def _run_and_recipe(
    given: argparse.Namespace, overrides: list[str], processes: Processes
) -> tuple[Run, ParsedRecipe]:
    """The run that is begun or goes on, the same on all processes.

    Raises:
        CircletError: Also if the processes were given different recipes.
    """
    folder = Path(given.recipe)
    if (folder / "config.yaml").is_file():
        if overrides or given.output:
            raise CircletError(
                f"{folder} is a run: it goes on with its own config.yaml and takes no further options "
                f"({' '.join(overrides) or '--output'}); begin a new run from a recipe instead"
            )
        run = Run.open(folder)
        parsed = read_recipe(run.config)
    else:
        if processes.count > 1 and not given.output:
            raise CircletError(
                "several processes need the run's folder with --output, so that all have the same one, and "
                "those that torchrun starts again go on with it"
            )
        parsed = read_recipe(given.recipe, overrides)
        stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
        place = given.output or Path("runs") / f"{folder.stem}-{stamp}"
        if "TORCHELASTIC_RUN_ID" in os.environ and Run(place).has(parsed.text):
            run = Run.open(place)  # torchrun has started the same words again
        else:
            run = Run.new(place)
    texts = processes.of_all(parsed.text)
    for rank, text in enumerate(texts):
        if text != texts[0]:
            lines = zip(texts[0].splitlines(), text.splitlines(), strict=False)
            first, other = next((pair for pair in lines if pair[0] != pair[1]), ("its end", "more"))
            raise CircletError(
                f"the processes have different recipes: where process 0 has {first.strip()!r}, process "
                f"{rank} has {other.strip()!r}. Give all of them the same words"
            )
    return run, parsed


def evaluate(arguments: Sequence[str]) -> None:
    """circlet evaluate RUN"""
    run = _run_argument("evaluate", "Measure a run's best checkpoint; writes results.json.", arguments)
    console = Console()
    console.results(evaluate_run(run, console))
    console.say(f"written to {run.results}")


def report(arguments: Sequence[str]) -> None:
    """circlet report RUN"""
    run = _run_argument("report", "Write the page that shows a run: report.html.", arguments)
    Console().say(f"report: {report_run(run)}")


def merge(arguments: Sequence[str]) -> None:
    """circlet merge RUN [--checkpoint last] [--output FILE]"""
    parser = argparse.ArgumentParser(
        prog="circlet merge",
        description="Write the network, losses and proxies of a run's checkpoint into one file, whatever the "
        "number of processes that trained it. torch.load(FILE, weights_only=True) reads it.",
    )
    parser.add_argument("run", type=Path, help="the run's folder")
    parser.add_argument(
        "--checkpoint", choices=("best", "last"), default="best", help="which checkpoint (default: best)"
    )
    parser.add_argument("--output", type=Path, help="the file (default: RUN/model.pt)")
    given = parser.parse_args(arguments)
    run = Run.open(given.run)
    output = given.output or run.folder / "model.pt"
    if not output.parent.is_dir():
        raise CircletError(f"--output {output}: there is no folder {output.parent}")
    content = merge_checkpoint(Checkpoints(run.checkpoints).path(given.checkpoint), output)
    numbers = sum(tensor.numel() for tensor in content["model"].values())
    Console().say(
        f"{output}: {len(content['model']):,} tensors, {numbers:,} numbers, of step "
        f"{content['progress']['step']:,}"
    )


def _run_argument(command: str, description: str, arguments: Sequence[str]) -> Run:
    parser = argparse.ArgumentParser(prog=f"circlet {command}", description=description)
    parser.add_argument("run", type=Path, help="the run's folder")
    return Run.open(parser.parse_args(arguments).run)
