"""Where in a folder or a zip file a data set lies."""

from collections.abc import Sequence
from pathlib import Path

from circlet.data.cache import unpacked
from circlet.data.manifest import listed
from circlet.errors import CircletError


def located(root: str, needed: Sequence[str], name: str, layout: str = "") -> Path:
    """The folder that holds what a format needs: the root, or a folder in it, as archives often have one.

    Args:
        root: A folder, or a zip file, which is unpacked once into the cache.
        needed: Files and folders that must be there, relative to the folder that is looked for.
        name: Of the format, for the message.
        layout: What the message says of the layout besides the names needed.

    Raises:
        CircletError: The root is absent, or it and the folders in it lack something that is needed, or
            several of them have it all.
    """
    folder = Path(root)
    if folder.is_file():
        if folder.suffix.lower() != ".zip":
            raise CircletError(f"{folder} is a file: give the folder of {name}, or a zip file of it")
        folder = unpacked(folder)
    if not folder.is_dir():
        raise CircletError(f"there is no folder {folder}: give the folder of {name}, or a zip file of it")
    inside = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    lacking = {
        place: [entry for entry in needed if not (place / entry).exists()] for place in (folder, *inside)
    }
    whole = [place for place, absent in lacking.items() if not absent]
    if whole and (whole[0] == folder or len(whole) == 1):
        return whole[0]
    if whole:
        raise CircletError(f"{root} holds {name} several times ({listed(whole)}): give one of these folders")
    nearest = min(lacking, key=lambda place: len(lacking[place]))
    raise CircletError(
        f"{nearest} lacks {', '.join(lacking[nearest])}: {name} is read from a folder with "
        f"{', '.join(needed)}{layout and f'; {layout}'}"
    )
