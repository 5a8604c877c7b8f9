"""The commands train, evaluate and report."""

import argparse
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import torch

from circlet.errors import CircletError
from circlet.training.allocator import keep_freed_memory
from circlet.training.console import Console
from circlet.training.loop import train as run_training
from circlet.training.parts import make_parts
from circlet.training.recipe import built_in_recipes, read_recipe, recipe_parser
from circlet.training.results import evaluate_run, report_run
from circlet.training.run import Run


def train(arguments: Sequence[str]) -> None:
    """circlet train RECIPE [--output FOLDER] [--key value ...]"""
    parser = argparse.ArgumentParser(
        prog="circlet train",
        description="Train an embedding by a recipe, or continue a run that was interrupted.",
        epilog="Any key of the recipe can be given: --loss.init_args.margin 0.4 --optimizer.steps 2000. "
        "`circlet train RECIPE --keys` prints them all.",
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
        parsed = read_recipe(given.recipe, overrides)
        stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
        run = Run.new(given.output or Path("runs") / f"{folder.stem}-{stamp}")
    console = Console()
    recipe = parsed.build()
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    keep_freed_memory()
    parts = make_parts(recipe)
    if not run.config.exists():  # only now, so that a mended recipe can be given the same folder again
        run.begin(parsed.text)
    for note in parts.notes:
        console.say(note)
    console.say(f"run {run.folder}: {parts.describe()}")
    run_training(recipe, parts, run, console)
    console.say("measuring the best checkpoint beside the network as it began and raw pixels")
    console.results(evaluate_run(run, console))
    console.say(f"report: {report_run(run)}")


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


def _run_argument(command: str, description: str, arguments: Sequence[str]) -> Run:
    parser = argparse.ArgumentParser(prog=f"circlet {command}", description=description)
    parser.add_argument("run", type=Path, help="the run's folder")
    return Run.open(parser.parse_args(arguments).run)
