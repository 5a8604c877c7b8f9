"""The processes of a training: one alone, or several that a launcher such as torchrun has started."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore, Store  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous

from circlet.errors import CircletError

# How long a process waits for the others: longer than one may need alone to measure.
TIMEOUT = timedelta(minutes=10)
# How long the first to come wait for the last.
_START = timedelta(minutes=2)
# How long those that are left wait for a sign of one another, to find out who is gone.
_SIGN_OF_LIFE = 3.0
_PAUSE = 0.5
_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Processes:
    """This process among those of a training.

    Attributes:
        rank: Its number.
        count: How many there are.
        local_rank: Its number on its machine: that of its GPU.
        group: All of them; None for one alone.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    group: dist.ProcessGroup | None = None
    _store: Store | None = None

    @classmethod
    def of_launcher(cls) -> "Processes":
        """Join the processes that the environment speaks of, as torchrun sets it; without one this is alone.

        Raises:
            CircletError: The environment is not complete, or not all processes came in time.
        """
        if "WORLD_SIZE" not in os.environ:
            return cls()
        missing = [name for name in _VARIABLES if name not in os.environ]
        if missing:
            raise CircletError(
                f"WORLD_SIZE is set, so that this is one of several processes, but {', '.join(missing)} "
                f"is not: start them with torchrun, or unset WORLD_SIZE to train in one process"
            )
        rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        if not 0 <= rank < count:
            raise CircletError(f"RANK is {rank}, but WORLD_SIZE is {count}: ranks are 0 to {count - 1}")
        local_rank = int(os.environ["LOCAL_RANK"])
        if count == 1:
            return cls(local_rank=local_rank)
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        if torch.cuda.is_available():
            torch.cuda.set_device(local_rank)
        place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        try:
            store, _, _ = next(rendezvous("env://", rank, count, timeout=_START))
            store = PrefixStore("circlet", store)
            store.set(f"here/{rank}", f"pid {os.getpid()} on {socket.gethostname()}")
        except RuntimeError as error:
            raise CircletError(
                f"process {rank} of {count} does not find all others at {place} ({_first_line(error)}): "
                f"start as many as WORLD_SIZE says, with one MASTER_ADDR and MASTER_PORT"
            ) from error
        _wait_for_all(store, rank, count, place)
        dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=TIMEOUT)
        return cls(rank, count, local_rank, dist.group.WORLD, store)

    @property
    def first(self) -> bool:
        """Whether it is the one that writes and speaks."""
        return self.rank == 0

    def wait(self) -> None:
        """Until all are here."""
        if self.group is not None:
            dist.barrier(self.group)

    def of_first(self, value: Any) -> Any:
        """What the first process has, on all of them; plain values that can be pickled."""
        if self.group is None:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0, group=self.group)
        return values[0]

    def of_all(self, value: Any) -> list[Any]:
        """What each process has, by rank, on all of them; plain values that can be pickled."""
        if self.group is None:
            return [value]
        values: list[Any] = [None] * self.count
        dist.all_gather_object(values, value, group=self.group)
        return values

    def leave(self) -> None:
        """Go on alone: all processes are done with one another."""
        if self.group is not None:
            self.wait()
            dist.destroy_process_group()
            # torch 2.14 aborts a process that ends within moments of its last message by gloo: 8 of 40 did,
            # also without circlet, and none of 28 that paused.
            time.sleep(_PAUSE)

    @contextmanager
    def telling_who_is_gone(self) -> Iterator[None]:
        """Where talking to the others fails inside, find out which of them are gone, and say so.

        Raises:
            CircletError: In place of the failure.
        """
        try:
            yield
        except RuntimeError as error:
            if self.group is None or not _is_of_connection(error):
                raise
            raise CircletError(self._who_is_gone(error)) from error

    def _who_is_gone(self, error: RuntimeError) -> str:
        """Those who are left give a sign, and wait for those of the others."""
        assert self._store is not None
        gone: list[str] = []
        try:
            self._store.set(f"left/{self.rank}", "yes")
            deadline = time.monotonic() + _SIGN_OF_LIFE
            others = [rank for rank in range(self.count) if rank != self.rank]
            while others and time.monotonic() < deadline:
                others = [rank for rank in others if not self._store.check([f"left/{rank}"])]
                time.sleep(0.05)
            for rank in others:
                here = self._store.get(f"here/{rank}").decode()
                gone.append(f"process {rank} ({here})")
        except RuntimeError:  # the store went with the process that kept it
            gone = [f"process 0, which kept the list of processes, at {os.environ['MASTER_ADDR']}"]
        who = " and ".join(gone) or "another process"
        verb = "are" if len(gone) > 1 else "is"
        return (
            f"process {self.rank} of {self.count} stops: {who} {verb} gone or does not answer "
            f"({_first_line(error)}). The last checkpoint is whole: start the training again, with as many "
            f"processes or another number, and it goes on from there"
        )


def _wait_for_all(store: Store, rank: int, count: int, place: str) -> None:
    here = [f"here/{other}" for other in range(count)]
    try:
        store.wait(here, _START)
    except RuntimeError as error:
        missing = [str(other) for other in range(count) if not store.check([here[other]])]
        raise CircletError(
            f"process {rank} of {count} has waited {_START.seconds} seconds at {place} for process "
            f"{', '.join(missing)}: start as many as WORLD_SIZE says, on all machines"
        ) from error


def _is_of_connection(error: RuntimeError) -> bool:
    if isinstance(error, dist.DistError):
        return True
    return any(mark in str(error) for mark in ("gloo", "Connection", "Timed out", "NCCL", "peer"))


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
