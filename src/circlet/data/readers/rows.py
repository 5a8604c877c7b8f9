"""Rows of a manifest that is being read, and what is wrong with them."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from circlet.data.manifest import Manifest
from circlet.data.readers.lists import list_lines
from circlet.data.readers.published import Published
from circlet.errors import CircletError


class Rows:
    """The rows of a manifest. Faults are gathered, so that the first one is named and all are counted.

    Args:
        root: The folder that paths start from.
        others: Columns besides path, label and split.
    """

    def __init__(self, root: Path, *others: str) -> None:
        self.root = root
        self._columns: dict[str, list[str]] = {name: [] for name in ("path", "label", "split", *others)}
        self._places: dict[str, str] = {}
        self._faults: list[str] = []

    def lines(
        self, file: Path, pattern: str, form: str, header: str | None = None
    ) -> Iterator[tuple[str, re.Match[str]]]:
        """The lines of a list file with their places, "FILE, line N". Empty lines are passed over.

        Args:
            file: Text in UTF-8.
            pattern: A regular expression for the whole line, without the blanks around it. A line that does
                not match is a fault.
            form: How a line looks, for the message.
            header: Words of the first line, which is then no row.

        Raises:
            CircletError: The file can't be read, or its header is another one.
        """
        lines = list_lines(file)
        if header is not None:
            number, found = next(lines, (1, ""))
            if found.split() != header.split():
                raise CircletError(
                    f"{file}, line {number}: the header is {found!r}, but it should be {header!r}"
                )
        for number, line in lines:
            place = f"{file}, line {number}"
            if match := re.fullmatch(pattern, line):
                yield place, match
            else:
                self.fault(f"{place}: {line!r} is not {form}")

    def fault(self, message: str) -> None:
        """Note what is wrong with one row."""
        self._faults.append(message)

    def add(self, path: str, label: str, split: str, *others: str, place: str | None = None) -> None:
        """Add a row.

        Args:
            path: Relative to the root.
            label: The class.
            split: train, test, query or gallery.
            others: Values of the other columns.
            place: The line that names the picture. That there is no such picture, or that an earlier line
                names it too, is then a fault. None: it was found in a folder.
        """
        if place is not None:
            if path in self._places:
                self.fault(f"{place} names {path} a second time, after {self._places[path]}")
            elif not (self.root / path).is_file():
                self.fault(f"{place}: there is no picture {self.root / path}")
            self._places[path] = place
        for column, value in zip(self._columns.values(), (path, label, split, *others), strict=True):
            column.append(value)

    def manifest(self, published: Published, notes: Iterable[str] = ()) -> Manifest:
        """The manifest, with the published counts compared in its notes.

        Raises:
            CircletError: Something is wrong with a row, or there are none.
        """
        if self._faults:
            more = f" ({len(self._faults) - 1:,} more faults of this data set)" if self._faults[1:] else ""
            raise CircletError(self._faults[0] + more)
        if not self._columns["path"]:
            raise CircletError(f"{self.root} holds no pictures")
        manifest = Manifest.of(self._columns, self.root)
        return Manifest(manifest.table, self.root, (*published.compared(manifest.table), *notes))
