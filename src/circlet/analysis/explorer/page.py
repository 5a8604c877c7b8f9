"""The explorer as one file that needs no network."""

from pathlib import Path
from typing import Any

import jinja2

from circlet.analysis.explorer.entries import ENTRIES, Entry
from circlet.analysis.figures import LOWERS, RAISES, REST
from circlet.errors import CircletError
from circlet.report.style import DARK_COLOURS, FONT, GRID, INK, MUTED, NEGATIVE, PAPER, POSITIVE, RECALL

_FOLDER = Path(__file__).parent
_SCRIPTS = ("losses.js", "trace.js", "draw.js", "side.js", "page.js")
_COLOURS = {
    "ink": INK,
    "muted": MUTED,
    "grid": GRID,
    "paper": PAPER,
    "positive": POSITIVE,
    "negative": NEGATIVE,
    "flow": RECALL,
}
# Cividis (Nuñez et al. 2018) without its brightest end, so that white lines show everywhere.
_HEAT = {
    "gradient": [RAISES, REST, LOWERS],
    "loss": ["#00204d", "#31446b", "#666970", "#958f78", "#cbba69"],
}


def write_explorer(path: Path) -> Path:
    """Write the page that shows how each loss optimises in the plane of (s_n, s_p).

    Args:
        path: where to; folders on the way are made.

    Returns:
        The path.

    Raises:
        CircletError: The file can't be written.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("page.html").render(
        entries=[_shown(entry) for entry in ENTRIES],
        heat=_HEAT,
        colours=_COLOURS,
        dark_colours=DARK_COLOURS,
        style=f":root {{ --font: {FONT}; }}\n" + (_FOLDER / "style.css").read_text(encoding="utf-8"),
        scripts=[(_FOLDER / name).read_text(encoding="utf-8") for name in _SCRIPTS],
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise CircletError(f"{path} can't be written: {error}. Choose another file with --output") from error
    return path


def _shown(entry: Entry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "loss": entry.loss.__name__,
        "title": entry.title,
        "group": entry.group,
        "fixed": dict(entry.fixed),
        "switches": list(entry.switches),
        "defaults": entry.defaults(),
        "sliders": [vars(slider) for slider in entry.sliders],
    }
