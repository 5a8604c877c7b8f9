"""The commands data import, data check and data show."""

import argparse
import inspect
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median

import torch
from jsonargparse import ArgumentParser, DefaultHelpFormatter
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from circlet.data import (
    CUB200,
    IJB,
    MSMT17,
    Cars196,
    CUHK03NewProtocol,
    DataSource,
    DukeMTMC,
    FacePairList,
    FaceRecords,
    HuggingFaceDataset,
    ImageFolder,
    InShop,
    LabelledList,
    LFWPairs,
    Manifest,
    ManifestFile,
    Market1501,
    Omniglot,
    StanfordOnlineProducts,
    VeRi776,
    VerificationBin,
)
from circlet.data.check import Look, findings, looks
from circlet.data.contact_sheet import contact_sheet
from circlet.data.manifest import SPLITS
from circlet.data.places import Place
from circlet.data.summary import counts
from circlet.errors import CircletError

# What the command line calls the formats.
FORMATS: dict[str, type[DataSource]] = {
    "market1501": Market1501,
    "dukemtmc": DukeMTMC,
    "msmt17": MSMT17,
    "cuhk03-np": CUHK03NewProtocol,
    "veri776": VeRi776,
    "cub200": CUB200,
    "cars196": Cars196,
    "sop": StanfordOnlineProducts,
    "inshop": InShop,
    "omniglot": Omniglot,
    "folder": ImageFolder,
    "manifest": ManifestFile,
    "huggingface": HuggingFaceDataset,
    "insightface-rec": FaceRecords,
    "insightface-bin": VerificationBin,
    "lfw-pairs": LFWPairs,
    "face-pairs": FacePairList,
    "labelled-list": LabelledList,
    "ijb": IJB,
}
# Pictures whose size `show` looks up: enough for the median, and quick.
_SIZED = 500


class _Paragraphs(DefaultHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Help with the paragraphs of a docstring kept."""


def data(arguments: Sequence[str]) -> None:
    """circlet data import|check|show ..."""
    commands = {"import": _import, "check": _check, "show": _show}
    parser = argparse.ArgumentParser(
        prog="circlet data",
        description="import: make a manifest of a data set in a public format. check: look for what is wrong "
        "with a manifest and its pictures. show: count, and draw a sheet of pictures.",
        epilog="`circlet data COMMAND --help` says more.",
        allow_abbrev=False,
    )
    parser.add_argument("command", choices=list(commands))
    commands[parser.parse_args(arguments[:1]).command](arguments[1:])


def _import(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="circlet data import",
        usage="circlet data import FORMAT ROOT --output FILE [--key value ...]",
        description="Make a manifest of a data set in a public format. Pictures stay where they are.",
        epilog="`circlet data import FORMAT --help` says what a format looks like, and prints its options.",
        allow_abbrev=False,
    )
    parser.add_argument("format", choices=list(FORMATS))
    name = parser.parse_args(arguments[:1]).format
    source = FORMATS[name]
    of_format = ArgumentParser(
        prog=f"circlet data import {name}",
        description=(inspect.getdoc(source) or "").partition("\nArgs:")[0],
        formatter_class=_Paragraphs,
        allow_abbrev=False,
    )
    of_format.add_argument("--output", required=True, help="the manifest: .parquet or .csv")
    of_format.add_class_arguments(source, as_positional=True)
    given = of_format.parse_args(list(arguments[1:])).as_dict()
    output = Path(given.pop("output"))
    manifest = source(**given).manifest()
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        manifest.write(output)
    except OSError as error:
        raise CircletError(f"{output} can't be written: {error}") from error
    Manifest.read(output)  # so that what is wrong with it is said now
    _say(_counted(manifest, name))
    _say(*manifest.notes, f"written to {output}")


def _check(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="circlet data check",
        description="Read a manifest and all its pictures, and say what is wrong: missing and unreadable "
        "files, copies, classes with one picture or on both sides of the test, queries that can't find "
        "anything. The exit code is 1 if there is an error.",
        allow_abbrev=False,
    )
    parser.add_argument("manifest", type=Path, help="Parquet or CSV")
    given = parser.parse_args(arguments)
    manifest = Manifest.read(given.manifest)
    places = list(dict.fromkeys(manifest.places()))
    seen = dict(zip(places, _watched(places), strict=True))
    found = findings(manifest, seen)
    _say(_counted(manifest, str(given.manifest)))
    _say(_sizes(seen.values()), *manifest.notes)
    _say(*(f"{'error' if finding.error else 'found'}: {finding.text}" for finding in found))
    errors = sum(finding.error for finding in found)
    if errors:
        raise CircletError(
            f"{given.manifest}: {errors} {'kind' if errors == 1 else 'kinds'} of errors, named above"
        )
    _say("no errors")


def _show(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="circlet data show",
        description="Count the pictures, classes and cameras of a manifest; with --output, draw some "
        "classes, a row for each.",
        allow_abbrev=False,
    )
    parser.add_argument("manifest", type=Path, help="Parquet or CSV")
    parser.add_argument("--output", type=Path, help="the sheet of pictures, a .png")
    parser.add_argument("--split", nargs="+", choices=SPLITS, help="only these splits")
    parser.add_argument("--classes", type=int, default=8, help="rows of the sheet (default 8)")
    parser.add_argument("--pictures", type=int, default=10, help="columns of the sheet (default 10)")
    parser.add_argument("--size", type=int, default=96, help="pixels of a picture on the sheet (default 96)")
    parser.add_argument("--seed", type=int, default=0, help="draws other classes and pictures (default 0)")
    given = parser.parse_args(arguments)
    if given.output is not None and given.output.suffix != ".png":
        raise CircletError(f"the sheet is a PNG: --output {given.output} must end in .png")
    manifest = Manifest.read(given.manifest)
    if given.split:
        manifest = manifest.split(*given.split)
    if not len(manifest):
        raise CircletError(f"{given.manifest} has no picture of the split {' or '.join(given.split)}")
    _say(_counted(manifest, str(given.manifest)))
    places = list(dict.fromkeys(manifest.places()))
    drawn = torch.randperm(len(places), generator=torch.Generator().manual_seed(given.seed))[:_SIZED].tolist()
    sizes = _sizes(list(looks([places[number] for number in drawn])))
    _say(sizes + (f"; {_SIZED:,} pictures drawn by chance" if len(places) > _SIZED else ""), *manifest.notes)
    if given.output is not None:
        sheet = contact_sheet(
            manifest,
            title=f"{given.manifest.name}, drawn by chance (seed {given.seed})",
            classes=given.classes,
            pictures=given.pictures,
            size=given.size,
            seed=given.seed,
        )
        try:
            given.output.parent.mkdir(parents=True, exist_ok=True)
            sheet.save(given.output)
        except OSError as error:
            raise CircletError(f"{given.output} can't be written: {error}") from error
        _say(f"written to {given.output}")


def _watched(places: Sequence[Place]) -> Iterable[Look]:
    """The looks at the pictures, with a bar on a terminal."""
    console = Console(stderr=True)
    return track(
        looks(places), "reading", total=len(places), console=console, disable=not sys.stderr.isatty()
    )


def _counted(manifest: Manifest, title: str) -> Table:
    table = Table(title=title, title_justify="left")
    for place, name in enumerate(
        ("split", "pictures", "classes", "a class has: fewest", "median", "most", "cameras")
    ):
        table.add_column(name, justify="right" if place else "left")
    for part in counts(manifest):
        cameras = "-" if part.cameras is None else f"{part.cameras:,}"
        table.add_row(
            part.split,
            *(f"{number:,}" for number in (part.pictures, part.classes, part.fewest)),
            f"{part.median:g}",
            f"{part.most:,}",
            cameras,
        )
    return table


def _sizes(seen: Iterable[Look]) -> str:
    sizes = [look.size for look in seen if look.size is not None]
    if not sizes:
        return "no picture can be read"
    sides = []
    for name, values in zip(("wide", "high"), zip(*sizes, strict=True), strict=True):
        least, most = min(values), max(values)
        span = f"{least} to {most} pixels {name} (median {median(values):g})"
        sides.append(span if least < most else f"{least} pixels {name}")
    return "pictures: " + ", ".join(sides)


def _say(*lines: str | Table) -> None:
    console = Console(highlight=False, soft_wrap=not sys.stdout.isatty())
    for line in lines:
        console.print(Text(line) if isinstance(line, str) else line)
