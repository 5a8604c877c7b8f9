"""Real processes that run a function together: gloo on this machine."""

import multiprocessing
import os
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import Any

import torch
import torch.distributed as dist

# What the server of new processes imports once for all of them.
_PRELOADED = ["torch.distributed", "circlet.references", "circlet.training.commands"]
TIMEOUT = timedelta(seconds=20)


class Processes:
    """Some processes that wait for functions to run.

    Args:
        count: How many there are.
    """

    def __init__(self, count: int) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_PRELOADED)
        self._folder = tempfile.TemporaryDirectory()
        self._pipes: list[Connection] = []
        self._processes = []
        for rank in range(count):
            here, there = context.Pipe()
            arguments = (rank, count, os.path.join(self._folder.name, "store"), there)
            process = context.Process(target=_serve, args=arguments, daemon=True)
            process.start()
            there.close()
            self._pipes.append(here)
            self._processes.append(process)

    def run(self, function: Callable[..., Any], *arguments: Any, size: int) -> list[Any]:
        """Call function(group, *arguments) on the first `size` processes, with the group of these.

        Returns:
            What each returned; an exception that it raised stands for it.
        """
        for pipe in self._pipes[:size]:
            pipe.send((function, arguments, size))
        answers = [pipe.recv() for pipe in self._pipes[:size]]
        failed = [answer for answer in answers if isinstance(answer, RuntimeError)]
        if failed:
            raise RuntimeError("\n".join(map(str, failed)))
        return answers

    def close(self) -> None:
        for process in self._processes:
            process.kill()
        self._folder.cleanup()


def _serve(rank: int, count: int, store: str, pipe: Connection) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{store}", rank=rank, world_size=count, timeout=TIMEOUT)
    groups = {size: dist.new_group(list(range(size)), timeout=TIMEOUT) for size in range(1, count + 1)}
    while True:
        function, arguments, size = pipe.recv()
        try:
            pipe.send(function(groups[size], *arguments))
        except ValueError as error:
            pipe.send(error)
        except Exception:
            pipe.send(RuntimeError(f"process {rank}: {traceback.format_exc()}"))


class Launched:
    """Processes that each run a command of circlet, with the environment that torchrun would give them.

    Args:
        count: How many.
        commands: The words of the command; one for all, or one for each.
    """

    def __init__(self, count: int, *commands: list[str]) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_PRELOADED)
        self._folder = tempfile.TemporaryDirectory()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._processes = []
        for rank in range(count):
            environment = {
                "RANK": str(rank),
                "WORLD_SIZE": str(count),
                "LOCAL_RANK": str(rank),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
            }
            words = commands[min(rank, len(commands) - 1)]
            process = context.Process(target=_command, args=(words, environment, self._said(rank)))
            process.start()
            self._processes.append(process)

    def _said(self, rank: int) -> str:
        return os.path.join(self._folder.name, f"{rank}.txt")

    def said(self, rank: int | None = None) -> str:
        """What a process has written to its terminal, or what all have."""
        if rank is None:
            return "\n".join(self.said(rank) for rank in range(len(self._processes)))
        with open(self._said(rank)) as file:
            return "".join(line for line in file if "Warning" not in line and "warnings.warn" not in line)

    def pid(self, rank: int) -> int:
        pid = self._processes[rank].pid
        assert pid is not None
        return pid

    def running(self) -> bool:
        """Whether all of them are."""
        return all(process.is_alive() for process in self._processes)

    def codes(self, within: float = 120) -> list[int | None]:
        """The exit codes, once all have ended."""
        deadline = time.monotonic() + within
        for process in self._processes:
            process.join(max(0.0, deadline - time.monotonic()))
        codes = [process.exitcode for process in self._processes]
        for process in self._processes:
            process.kill()
        return codes


def _command(words: list[str], environment: dict[str, str], said: str) -> None:
    from circlet.cli import main

    os.environ.update(environment)
    with open(said, "w", buffering=1) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        sys.stdout = sys.stderr = file
        sys.exit(main(words))
