"""Real processes that run a function together: gloo on this machine."""

import multiprocessing
import os
import tempfile
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import Any

import torch
import torch.distributed as dist

TIMEOUT = timedelta(seconds=20)


class Processes:
    """Some processes that wait for functions to run.

    Args:
        count: How many there are.
    """

    def __init__(self, count: int) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["torch", "circlet.losses", "circlet.references"])
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
