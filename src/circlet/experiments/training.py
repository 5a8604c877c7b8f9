"""One training of an experiment: a run folder, trained by `circlet train` in a process of its own."""

import fcntl
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import IO, Literal, TypeVar

from circlet.training.run import Record, Run

Item = TypeVar("Item")
Found = TypeVar("Found")
Ending = Literal["complete", "stopped", "failed"]

_SECONDS_BETWEEN_LOOKS = 0.5
# What `circlet train` ends with after Ctrl-C, and what the system says of one that it came too early for.
_INTERRUPTED = (130, -signal.SIGINT, -signal.SIGTERM)


@dataclass(frozen=True)
class Training:
    """A training that is to be done once, by whichever process gets hold of it.

    Attributes:
        folder: Of its run, which also holds its lock and, as training.log, what it said.
        config: The complete recipe.
    """

    folder: Path
    config: str

    @property
    def complete(self) -> bool:
        return Run(self.folder).results.is_file()

    @property
    def log(self) -> Path:
        return self.folder / "training.log"

    @contextmanager
    def claimed(self) -> Iterator[IO[str] | None]:
        """Hold the right to this training; None where another process has it.

        The training process holds it too, so that one whose parent was killed is not trained a second time
        beside itself.
        """
        with held(self.folder / "training.lock") as lock:
            yield lock

    def train(
        self, lock: IO[str], stop: Event, go_on: Callable[[Record], bool] = lambda record: True
    ) -> Ending:
        """Train to the end, from the last checkpoint where there is one.

        Args:
            lock: What `claimed` gave.
            stop: Ends the training once it is set; it can be gone on with.
            go_on: Is told each evaluation, also those of before an interruption; False stops the training.

        Returns:
            "failed" where the training ended with an error: its log says which.

        Raises:
            KeyboardInterrupt: It was stopped, or interrupted from outside.
        """
        run = Run(self.folder)
        if not run.config.is_file():
            run.begin(self.config)
        told = 0
        with self.log.open("a", encoding="utf-8") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "circlet.cli", "train", str(self.folder)],
                stdout=log,
                stderr=log,
                pass_fds=[lock.fileno()],
            )
            try:
                while True:
                    ended = process.poll() is not None
                    evaluations = evaluations_of(run)
                    # An interrupted training drops what its checkpoint does not hold, and makes it again.
                    told = min(told, len(evaluations))
                    for record in evaluations[told:]:
                        told += 1
                        if not go_on(record) and not ended:
                            return "stopped"
                    if ended:
                        return self._ending(process.returncode, log)
                    if stop.wait(_SECONDS_BETWEEN_LOOKS):
                        raise KeyboardInterrupt
            finally:
                if process.poll() is None:
                    process.terminate()
                    process.wait()

    def _ending(self, code: int, log: IO[str]) -> Ending:
        if code in _INTERRUPTED:
            raise KeyboardInterrupt
        if code < 0:
            log.write(f"killed by signal {-code}, {signal.strsignal(-code)}\n")
        return "complete" if self.complete and code == 0 else "failed"

    def complaint(self) -> str:
        """The last line that the training said."""
        lines = self.log.read_text(encoding="utf-8").splitlines() if self.log.is_file() else []
        return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")


def in_threads(work: Callable[[Item, Event], Found], items: Iterable[Item], jobs: int) -> list[Found]:
    """Do some work for each item, several at once; an error or Ctrl-C ends all of it.

    Args:
        work: Is given an item, and what is set when the work must end.
        items: For each of which it is done.
        jobs: At once.
    """
    stop = Event()
    with ThreadPoolExecutor(jobs) as pool:
        try:
            return list(pool.map(lambda item: work(item, stop), items))
        except BaseException:
            stop.set()
            raise


@contextmanager
def held(path: Path, *, wait: bool = False) -> Iterator[IO[str] | None]:
    """Hold a lock; the system gives it back when its holders have ended, however they ended.

    Args:
        path: Of the lock.
        wait: Until it is free; without, there is None where another process, or thread, holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield None
        else:
            yield lock


def evaluations_of(run: Run) -> list[Record]:
    """The measurements that a run has recorded so far."""
    try:
        records = run.records()
    except json.JSONDecodeError:  # a line that is being written
        return []
    return [record for record in records if record["kind"] == "evaluation"]
