"""The command evaluate."""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import get_origin, get_type_hints

from jsonargparse import ArgumentParser
from rich.console import Console
from rich.table import Table
from rich.text import Text

from circlet.errors import CircletError
from circlet.evaluation.embeddings import read_embeddings
from circlet.evaluation.protocols import PROTOCOLS, Outcome
from circlet.training import commands as training_commands

_FIGURES = ("svg", "png", "pdf")


def evaluate(arguments: Sequence[str]) -> None:
    """circlet evaluate RUN, or circlet evaluate RUN|EMBEDDINGS --protocol NAME [--key value ...]"""
    parser = argparse.ArgumentParser(
        prog="circlet evaluate",
        description="Measure a run on its held-out pictures; with --protocol, the embeddings of a run, or of "
        "any file (.npy, .npz, .parquet, .safetensors), by a named protocol.",
        epilog="`circlet evaluate --protocol NAME --help` prints the options of a protocol. Results are "
        "written as results.json and figures beside the table that is shown.",
        allow_abbrev=False,
        add_help=False,
    )
    parser.add_argument("target", nargs="?", type=Path, help="the folder of a run, or a file of embeddings")
    parser.add_argument("-h", "--help", action="store_true", help="show this, or the options of a protocol")
    parser.add_argument("--protocol", choices=list(PROTOCOLS), help="what is measured")
    parser.add_argument("--gallery", type=Path, help="a file of embeddings that the others are compared with")
    parser.add_argument(
        "--labels", type=Path, help="labels of a .npy file: .npy, or text with one in each line"
    )
    parser.add_argument("--gallery_labels", type=Path, help="the same for the gallery")
    parser.add_argument("--output", type=Path, help="folder for the results (default: said at the end)")
    parser.add_argument(
        "--figures",
        nargs="*",
        choices=_FIGURES,
        default=["svg", "png"],
        help="formats of the figures; none after it writes none",
    )
    given, options = parser.parse_known_args(arguments)
    if given.protocol is None:
        if given.help:
            parser.print_help()
            return
        if given.target is None or not given.target.is_dir():
            parser.error(
                f"which protocol? A run alone needs none; {given.target or 'a file of embeddings'} needs "
                f"--protocol with {', '.join(PROTOCOLS)}"
            )
        training_commands.evaluate([str(given.target), *options])
        return
    protocol = PROTOCOLS[given.protocol]
    of_protocol = _parser(given.protocol, protocol)
    if given.help:
        of_protocol.print_help()
        return
    if given.target is None:
        parser.error("which embeddings? Give the folder of a run, or a file")
    chosen = of_protocol.parse_args(_with_lists(protocol, options)).as_dict()
    items = read_embeddings(given.target, labels=given.labels)
    gallery = None if given.gallery is None else read_embeddings(given.gallery, labels=given.gallery_labels)
    output = given.output or _default_output(given.target, given.protocol)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CircletError(f"{output} can't be made: {error}. Choose another folder with --output") from error
    try:
        outcome = protocol(items, gallery, **chosen)
    except ValueError as error:
        raise (
            error
            if isinstance(error, CircletError)
            else CircletError(f"{given.protocol} of {items.source}: {error}")
        ) from error
    for side in (items, gallery):
        if side is not None and (zeros := side.zeros()):
            outcome.notes.append(
                f"{zeros:,} embeddings of {side.source} are all zeros: their similarity to any other is 0"
            )
    _show(given.protocol, items.source, outcome)
    settings = {name: str(value) if isinstance(value, Path) else value for name, value in chosen.items()}
    results = {
        "protocol": given.protocol,
        "embeddings": str(given.target),
        "gallery": None if given.gallery is None else str(given.gallery),
        "settings": settings,
        "results": outcome.figures,
    }
    _clear_figures(output)
    (output / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    for name, chart in outcome.charts.items():
        for ending in given.figures:
            titled = chart.properties(title=f"{given.target.name}, {given.protocol}")
            titled.save(str(output / f"{name}.{ending}"), scale_factor=2)
    print(
        f"written to {output}: results.json"
        + "".join(f", {name}" for name in outcome.charts if given.figures)
    )


def _parser(name: str, protocol: Callable[..., Outcome]) -> ArgumentParser:
    summary = (protocol.__doc__ or "").split("\n")[0]
    parser = ArgumentParser(
        prog=f"circlet evaluate RUN|EMBEDDINGS --protocol {name}",
        description=summary,
        epilog="Besides, as for every protocol: --gallery, --labels, --gallery_labels, --output and "
        "--figures, see `circlet evaluate --help`. Lists are written 1,10,100.",
        allow_abbrev=False,
    )
    parser.add_function_arguments(protocol, skip={"items", "gallery"})
    return parser


def _with_lists(protocol: Callable[..., Outcome], options: Sequence[str]) -> list[str]:
    """The options with brackets around lists that were written 1,10,100, as their parser wants them."""
    hints = get_type_hints(protocol)
    lists = {f"--{name}" for name, hint in hints.items() if get_origin(hint) is tuple}
    given: list[str] = []
    for word in options:
        name, sign, value = word.partition("=")
        if sign and name in lists and value[:1] not in ("[", "("):
            given.append(f"{name}=[{value}]")
        elif given and given[-1] in lists and word[:1] not in ("[", "("):
            given.append(f"[{word}]")
        else:
            given.append(word)
    return given


def _clear_figures(output: Path) -> None:
    """Remove the figures of an earlier evaluation: beside other results they would be taken for theirs."""
    if (output / "results.json").is_file():
        for name in ("cmc", "precision_recall", "roc", "det"):
            for ending in _FIGURES:
                (output / f"{name}.{ending}").unlink(missing_ok=True)


def _default_output(target: Path, protocol: str) -> Path:
    if target.is_dir():
        return target / "evaluations" / protocol
    return Path("evaluations") / f"{target.name}-{protocol}"


def _show(protocol: str, source: str, outcome: Outcome) -> None:
    table = Table(show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, value in outcome.rows:
        table.add_row(Text(name), Text(value))
    console = Console(highlight=False)
    console.print(f"{protocol} of {source}", markup=False, soft_wrap=True)
    console.print(table)
    for note in outcome.notes:
        console.print(note, markup=False, soft_wrap=True)
