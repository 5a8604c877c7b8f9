"""Lists in text files."""

from collections.abc import Iterator
from pathlib import Path

from circlet.errors import CircletError


def list_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a list with their numbers, from 1 on, without empty ones.

    Raises:
        CircletError: The file is absent, or no text in UTF-8.
    """
    try:
        with path.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield number, line.strip()
    except (OSError, UnicodeDecodeError) as error:
        raise CircletError(f"the list {path} can't be read: {error}") from error
