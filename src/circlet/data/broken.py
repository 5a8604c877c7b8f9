"""Pictures that can't be read: they are counted, and too many of them stop a run."""

from circlet.data.manifest import Manifest, listed
from circlet.data.places import named
from circlet.errors import CircletError


class BrokenImages:
    """Counts the files that could not be read, and stops when there are too many.

    Args:
        manifest: The pictures.
        most: The share of the files above which the run stops.
    """

    def __init__(self, manifest: Manifest, most: float) -> None:
        self._places = manifest.places()
        self._most = most
        self._total = self._places.different()
        self.names: dict[str, None] = {}

    def add(self, broken: list[int]) -> list[str]:
        """Count the broken rows of a batch; returns the names that are new.

        Raises:
            CircletError: More than the given share of the files are broken.
        """
        names = dict.fromkeys(named(self._places[row]) for row in broken)
        new = [name for name in names if name not in self.names]
        self.names |= dict.fromkeys(new)
        if len(self.names) > self._most * self._total:
            raise CircletError(
                f"{len(self.names):,} of {self._total:,} picture files can't be read, which is more than "
                f"images.max_broken_share = {self._most:g}: {listed(self.names)}. Mend or remove them, or "
                f"raise the share"
            )
        return new
