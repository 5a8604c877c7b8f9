"""The commands compare and sweep."""

import argparse
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import optuna

from circlet.errors import CircletError
from circlet.experiments.comparison import (
    Entry,
    Tuning,
    check_folder,
    entries_of,
    search_of,
    train_all,
    trainings_of,
    tune,
)
from circlet.experiments.existing import compared_of
from circlet.experiments.outcome import Compared, Outcome
from circlet.experiments.page import comparison_table, write_comparison
from circlet.experiments.search import Sampler, Search, run_search, storage_in
from circlet.experiments.settings import NAMES, parsed, shown, threads, without_test
from circlet.experiments.space import grid, is_grid, space_of
from circlet.experiments.sweep import Swept
from circlet.experiments.sweep_page import sweep_table, write_sweep
from circlet.training.console import Console
from circlet.training.run import Run

_FORMATS = ("svg", "png", "pdf")


def compare(arguments: Sequence[str]) -> None:
    """circlet compare RECIPE... [--seeds N] [--tune N] [--key value ...], or circlet compare --from RUN..."""
    parser = argparse.ArgumentParser(
        prog="circlet compare",
        description="Train several recipes on the same data with the same budget and seeds, each tuned "
        "alike, and say how sure the differences are. Given again, the command goes on where it was stopped.",
        epilog="Any key of the recipes can be given for all of them: --optimizer.steps 500. A file with the "
        "key `entries` lists what is compared, see docs/comparisons.md.",
        allow_abbrev=False,
    )
    parser.add_argument("recipe", nargs="*", help="recipes, or a file that lists entries")
    parser.add_argument(
        "--from", dest="runs", nargs="+", type=Path, metavar="RUN", help="compare runs that exist"
    )
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each entry (default 3)")
    parser.add_argument("--output", type=Path, help="folder (default: runs/comparison-DATE-TIME)")
    parser.add_argument("--baseline", help="the entry that the others are held against (default: the first)")
    parser.add_argument("--only", nargs="+", metavar="ENTRY", help="some of the entries")
    parser.add_argument(
        "--tune", type=int, default=0, metavar="N", help="settings tried for each entry before"
    )
    parser.add_argument(
        "--over",
        nargs="+",
        default=[],
        metavar="KEY=VALUES",
        help="what may be tuned, as for `circlet sweep`",
    )
    parser.add_argument(
        "--share", type=float, default=0.2, help="share of the training classes that tuning is measured on"
    )
    parser.add_argument("--tuning_seed", type=int, default=0, help="of these classes, and of the search")
    parser.add_argument("--storage", help="Optuna storage of the tuning (default: tuning.db in the folder)")
    _add_common(parser)
    parser.add_argument(
        "--part", default="1/1", metavar="I/N", help="train only every N-th training from the I-th on"
    )
    given, options = parser.parse_known_args(arguments)
    console = Console()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder = given.output or Path("runs") / f"comparison-{datetime.now():%Y%m%d-%H%M%S}"
    notes: list[str] = []
    if given.runs:
        if given.recipe or options:
            raise CircletError("--from compares runs that exist: leave recipes and their settings out")
        compared = compared_of(given.runs)
        notes.append("Runs that exist, by their embeddings: those of each run's own best checkpoint.")
    else:
        part, parts = _part(given.part)
        _check(seeds=given.seeds, jobs=given.jobs)
        entries = _only(entries_of(given.recipe, options, space_of(given.over)), given.only)
        _check_baseline(given.baseline, [entry.name for entry in entries])
        tuning = Tuning(given.tune, given.share, given.tuning_seed, given.measure)
        searches = [search_of(entry, tuning, folder, given.jobs) for entry in entries]
        folder.mkdir(parents=True, exist_ok=True)
        storage = given.storage or storage_in(folder / "tuning.db")
        if untuned := [entry.name for entry in entries if given.tune and not entry.space]:
            notes.append(f"Not tuned, as nothing says what may change: {', '.join(untuned)}.")
        tuned = [
            tune(entry, search, storage, given.jobs, console.say)
            for entry, search in zip(entries, searches, strict=True)
        ]
        trainings = [
            trainings_of(entry, found, given.seeds, folder, given.jobs)
            for entry, found in zip(entries, tuned, strict=True)
        ]
        # Seed by seed, so that what is interrupted has every entry about equally often.
        in_turn = [training for of_seed in zip(*trainings, strict=True) for training in of_seed]
        check_folder(in_turn)
        failed = train_all(in_turn[part - 1 :: parts], given.jobs, console.say)
        open_ones = [training for training in in_turn if not training.complete and training not in failed]
        if open_ones:
            console.say(
                f"{len(open_ones)} of {len(in_turn)} trainings are left to other parts; no report yet"
            )
            return
        notes += [
            f"{training.folder.name} of {training.folder.parent.name} failed: {training.complaint()}"
            for training in failed
        ]
        compared = []
        for entry, found, own in zip(entries, tuned, trainings, strict=True):
            runs = {seed: Run(training.folder) for seed, training in enumerate(own) if training.complete}
            if not runs:
                raise CircletError(f"all trainings of {entry.name} failed: {own[0].complaint()}")
            compared.append(Compared.of(entry.name, runs, found, len(own) - len(runs)))
    names = [entry.name for entry in compared]
    _check_baseline(given.baseline, names)
    outcome = Outcome(compared, given.baseline or names[0])
    measure = outcome.shown(given.measure)
    page = write_comparison(outcome, folder, measure, notes, given.figures)
    console.table(comparison_table(outcome, measure))
    for note in notes:
        console.say(note)
    console.say(f"report: {page}")


def sweep(arguments: Sequence[str]) -> None:
    """circlet sweep RECIPE --over KEY=VALUES... [--trials N] [--key value ...]"""
    parser = argparse.ArgumentParser(
        prog="circlet sweep",
        description="Search settings of a recipe by a figure on held-out training classes, and show how "
        "sensitive the figure is to them. Given again, the command goes on where it was stopped; several "
        "processes may share one study.",
        epilog="Values are loss.margin=0.1,0.25,0.4; ranges are loss.margin=0.1..0.4, loss.scale=8..256:log, "
        "and for a grid loss.margin=0.1..0.4:5. Any key of the recipe can be given besides: "
        "--optimizer.steps 500.",
        allow_abbrev=False,
    )
    parser.add_argument("recipe", help="a recipe")
    parser.add_argument("--over", nargs="+", required=True, metavar="KEY=VALUES", help="what is searched")
    parser.add_argument(
        "--sampler",
        choices=("grid", "random", "tpe"),
        help="how settings are chosen (default: grid where all are values or ranges with a number, else tpe)",
    )
    parser.add_argument(
        "--trials", type=int, help="settings tried (default 20; of a grid all, and never more)"
    )
    parser.add_argument(
        "--pruner",
        choices=("none", "median"),
        default="none",
        help="median stops a trial that is below the median of the others at one of its evaluations",
    )
    parser.add_argument("--output", type=Path, help="folder (default: runs/sweep-RECIPE-DATE-TIME)")
    parser.add_argument(
        "--share",
        type=float,
        default=0.2,
        help="share of the training classes that are held out to measure on; 0 measures on the test",
    )
    parser.add_argument("--search_seed", type=int, default=0, help="of the classes held out and the search")
    parser.add_argument("--storage", help="Optuna storage, by its URL (default: study.db in the folder)")
    parser.add_argument("--study", help="name of the study in the storage (default: the folder's)")
    _add_common(parser)
    given, options = parser.parse_known_args(arguments)
    console = Console()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    stem = Path(given.recipe).stem
    folder = given.output or Path("runs") / f"sweep-{stem}-{datetime.now():%Y%m%d-%H%M%S}"
    space = space_of(given.over)
    sampler: Sampler = given.sampler or ("grid" if is_grid(space) else "tpe")
    most = len(grid(space)) if sampler == "grid" else None
    trials = (most or 20) if given.trials is None else min(given.trials, most or given.trials)
    _check(trials=trials, jobs=given.jobs)
    own = [*options, *threads(given.jobs)]
    if given.share:
        own += without_test(parsed(given.recipe, options).text, given.share, given.search_seed)
    search = Search(
        given.recipe,
        own,
        space,
        trials,
        given.measure,
        folder / "trials",
        sampler,
        given.pruner,
        given.search_seed,
    )
    search.check()
    folder.mkdir(parents=True, exist_ok=True)
    study = search.study(given.study or folder.name, given.storage or storage_in(folder / "study.db"))
    run_search(search, study, given.jobs, console.say)
    swept = Swept.of(search, study)
    if elsewhere := sum(trial.state == "running" for trial in swept.trials):
        console.say(f"{elsewhere} trials are made elsewhere: give the command again when they have ended")
    page = write_sweep(swept, folder, options, given.figures)
    console.table(sweep_table(swept, 10))
    console.say(f"best: {shown(swept.best.settings)}; as a recipe: {folder / 'best.yaml'}")
    console.say(f"report: {page}")


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--measure",
        choices=list(NAMES),
        default="map_at_r",
        help="the figure that counts (default map_at_r; mean_average_precision where there are cameras)",
    )
    parser.add_argument(
        "--jobs", type=int, default=1, help="trainings at once, which share the cores (default 1)"
    )
    parser.add_argument(
        "--figures", nargs="*", choices=_FORMATS, default=["svg", "png"], help="formats of the figures"
    )


def _check(**numbers: int) -> None:
    for name, value in numbers.items():
        if value < 1:
            raise CircletError(f"--{name} must be at least 1, but got {value}")


def _check_baseline(name: str | None, names: Sequence[str]) -> None:
    if name is not None and name not in names:
        raise CircletError(f"--baseline {name!r} is none of the entries: {', '.join(names)}")


def _part(text: str) -> tuple[int, int]:
    numbers = text.split("/")
    if len(numbers) != 2 or not all(number.isdigit() for number in numbers):
        raise CircletError(f"--part must be I/N, such as 1/4, but got {text!r}")
    part, parts = map(int, numbers)
    if not 1 <= part <= parts:
        raise CircletError(f"--part {text}: the first number must be from 1 to the second")
    return part, parts


def _only(entries: list[Entry], names: Sequence[str] | None) -> list[Entry]:
    if names is None:
        return entries
    known = [entry.name for entry in entries]
    if unknown := [name for name in names if name not in known]:
        raise CircletError(f"--only {unknown[0]!r} is none of the entries: {', '.join(known)}")
    return [entry for entry in entries if entry.name in names]
