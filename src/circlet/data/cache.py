"""The folder for what is made once and kept."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from circlet.errors import CircletError


def cache_folder() -> Path:
    """$CIRCLET_CACHE, or else ~/.cache/circlet."""
    return Path(os.environ.get("CIRCLET_CACHE") or Path.home() / ".cache" / "circlet")


@contextmanager
def made_whole(folder: Path) -> Iterator[Path]:
    """A temporary folder that becomes `folder` when the block ends well, so that it is never half made.

    Raises:
        CircletError: The cache can't be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise CircletError(
            f"the cache folder {folder.parent} can't be written ({error.strerror}): name another one in the "
            f"environment variable CIRCLET_CACHE"
        ) from error
    try:
        yield temporary
        try:
            temporary.rename(folder)
        except OSError:
            if not folder.is_dir():  # another process may have made it meanwhile, which is as good
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
