"""The folder for what is made once and kept."""

import hashlib
import os
import shutil
import tempfile
import zipfile
import zlib
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


def unpacked(archive: Path) -> Path:
    """The folder with what a zip file holds, unpacked once into the cache.

    The folder is named by the names and checksums in the archive's directory, so that another archive of
    the same name has another folder, and one that is moved keeps its own.

    Raises:
        CircletError: The file is no whole zip file, or one with a password, or the cache can't be written.
    """
    try:
        with zipfile.ZipFile(archive) as file:
            held = [(entry.filename, entry.file_size, entry.CRC) for entry in file.infolist()]
            digest = hashlib.sha256(repr(held).encode()).hexdigest()[:16]
            folder = cache_folder() / "unpacked" / f"{archive.stem}-{digest}"
            if not folder.is_dir():
                with made_whole(folder) as temporary:
                    file.extractall(temporary)
    except (zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise CircletError(f"{archive} is no whole zip file ({error}): get it again") from error
    except RuntimeError as error:  # a password, or a compression that Python does not have
        raise CircletError(
            f"{archive} can't be unpacked ({error}): unpack it, and give the folder"
        ) from error
    return folder
