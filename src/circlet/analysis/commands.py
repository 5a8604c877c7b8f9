"""The command explore."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from circlet.analysis.explorer import ENTRIES, write_explorer
from circlet.analysis.figures import boundary_figure, gradient_figure
from circlet.errors import CircletError

_FORMATS = ("png", "svg", "pdf")


def explore(arguments: Sequence[str]) -> None:
    """circlet explore [--output FILE] [--figures FOLDER [--formats png svg pdf]]"""
    parser = argparse.ArgumentParser(
        prog="circlet explore",
        description="Write the page that shows how each loss optimises in the plane of (s_n, s_p): one file "
        "that any browser opens, without a network.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--output", type=Path, default=Path("explore.html"), help="the page (default: explore.html)"
    )
    parser.add_argument(
        "--figures",
        type=Path,
        metavar="FOLDER",
        help="also write a figure of the boundary and one of the gradients of every loss into this folder",
    )
    parser.add_argument(
        "--formats", nargs="+", choices=_FORMATS, default=["png"], help="of the figures (default: png)"
    )
    given = parser.parse_args(arguments)
    print(f"page: {write_explorer(given.output)}")
    if given.figures is not None:
        _write_figures(given.figures, given.formats)
        print(f"figures: {given.figures}")


def _write_figures(folder: Path, formats: Sequence[str]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for entry in ENTRIES:
            loss = entry.build({})
            name = "-".join([entry.loss.__name__, *(str(value) for value in entry.fixed.values())])
            for kind, figure in (("boundary", boundary_figure(loss)), ("gradients", gradient_figure(loss))):
                for form in formats:
                    figure.save(folder / f"{name}-{kind}.{form}", ppi=144)
    except OSError as error:
        raise CircletError(
            f"figures can't be written into {folder}: {error}. Choose another folder with --figures"
        ) from error
