"""The command plan."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

from circlet.errors import CircletError
from circlet.training.console import Console
from circlet.training.planning import (
    ClassTraining,
    Machine,
    Optimizer,
    Plan,
    replicated,
    sampling_pays_from,
    sharding_pays_from,
)
from circlet.training.planning import (
    plan as planned,
)
from circlet.training.speeds import measured, seconds_of_a_call, this_device

# Sampling pays where it makes a step so many times as fast.
_TIMES = 2.0


def plan(arguments: Sequence[str]) -> None:
    """circlet plan --classes C --dim d --batch B --processes N --bandwidth GB/s [...]"""
    given = _arguments(arguments)
    training = ClassTraining(
        given.classes, given.dim, given.batch, given.processes, given.sample_rate, given.optimizer
    )
    machine = _machine(given, training)
    found = planned(training, machine)
    console = Console()
    console.say(
        f"{training.classes:,} classes of {training.dim} dimensions, a batch of {training.batch:,} on "
        f"{training.processes:,} processes, sample rate {training.sample_rate:g}, {training.optimizer}: "
        f"each process has {found.classes:,} classes, of which {found.rows:,.0f} take part in a step"
    )
    console.table(_memory(found))
    console.table(_messages(found, training.processes))
    console.table(_time(found))
    console.say(_speeds(machine))
    for line in _conclusions(training, machine, found):
        console.say(line)
    console.say("The backbone is not in these figures: neither its memory, nor its time, nor its gradients.")


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="circlet plan",
        description="Say what a step of class-level training costs each process, in memory, messages and "
        "time, for classes that are spread over processes. The backbone is not in it.",
        epilog="The speeds are those of this machine, measured in about a second with the threads that a "
        "process would have (OMP_NUM_THREADS), unless --teraflops and --memory-bandwidth are given. What "
        "a call of an operation takes is measured always.",
        allow_abbrev=False,
    )
    parser.add_argument("--classes", type=int, required=True, help="how many there are")
    parser.add_argument("--dim", type=int, required=True, help="dimensions of the embeddings")
    parser.add_argument("--batch", type=int, required=True, help="pictures of all processes together")
    parser.add_argument("--processes", type=int, default=1, help="that share the classes (default: 1)")
    parser.add_argument(
        "--bandwidth", type=float, help="GB/s that a process sends; needed for more than one process"
    )
    parser.add_argument(
        "--sample-rate", type=float, default=1.0, help="share of the classes in a step (default: 1, all)"
    )
    parser.add_argument(
        "--optimizer", choices=get_args(Optimizer), default="sgd", help="of the proxies (default: sgd)"
    )
    parser.add_argument("--teraflops", type=float, help="float32 products of another machine")
    parser.add_argument("--memory-bandwidth", type=float, help="GB/s of another machine, read and written")
    return parser.parse_args(arguments)


def _machine(given: argparse.Namespace, training: ClassTraining) -> Machine:
    """
    Raises:
        CircletError: A speed is missing, or not above 0.
    """
    for name in ("bandwidth", "teraflops", "memory_bandwidth"):
        value, option = getattr(given, name), f"--{name.replace('_', '-')}"
        if value is not None and not value > 0:
            raise CircletError(f"{option} must be above 0, but got {value:g}: give what the machine has")
    if training.processes > 1 and given.bandwidth is None:
        raise CircletError(
            f"{training.processes} processes send to each other, but --bandwidth is not given: give the GB/s "
            f"that one of them can send"
        )
    if (given.teraflops is None) != (given.memory_bandwidth is None):
        raise CircletError(
            "--teraflops and --memory-bandwidth describe another machine together, but one is missing: "
            "give both, or none to measure this machine"
        )
    network = 1e9 * (given.bandwidth or 1)
    if given.teraflops is None:
        return measured(training, network)
    memory = 1e9 * given.memory_bandwidth
    return Machine(1e12 * given.teraflops, memory, memory, memory, network, seconds_of_a_call(this_device()))


def _memory(found: Plan) -> list[list[str]]:
    rows = [[name, _mebibytes(size)] for name, size in found.memory.items()]
    return [["memory of a process", "MiB"], *rows, ["together", _mebibytes(sum(found.memory.values()))]]


def _messages(found: Plan, processes: int) -> list[list[str]]:
    if not found.messages:
        return [["a process sends and receives", "MiB"], ["nothing: it is alone", ""]]
    rows = [
        [f"{message.content} ({message.collective})", _mebibytes(message.sent(processes))]
        for message in found.messages
    ]
    total = sum(message.sent(processes) for message in found.messages)
    return [["a process sends and receives", "MiB"], *rows, ["together", _mebibytes(total)]]


def _time(found: Plan) -> list[list[str]]:
    titles = ["part of a step", "GFLOP", "memory GB", "cached GB", "ms", "share"]
    rows = [
        [
            part,
            _gigas(work.products),
            _gigas(work.rows + work.stream),
            _gigas(work.cached),
            f"{1000 * found.seconds[part]:,.2f}",
            f"{100 * found.seconds[part] / found.step:.1f} %",
        ]
        for part, work in found.work.items()
    ]
    works = found.work.values()
    total = [
        "together",
        _gigas(sum(work.products for work in works)),
        _gigas(sum(work.rows + work.stream for work in works)),
        _gigas(sum(work.cached for work in works)),
        f"{1000 * found.step:,.2f}",
        "",
    ]
    return [titles, *rows, total]


def _speeds(machine: Machine) -> str:
    return (
        f"Speeds of a process: products {machine.products / 1e12:.3g} TFLOP/s, memory "
        f"{machine.stream / 1e9:.3g} GB/s, sampled rows {machine.rows / 1e9:.3g} GB/s, tiles "
        f"{machine.cached / 1e9:.3g} GB/s, a call {1e6 * machine.call:.3g} microseconds."
    )


def _conclusions(training: ClassTraining, machine: Machine, found: Plan) -> list[str]:
    lines = []
    if training.sample_rate < 1:
        whole = planned(replace(training, sample_rate=1.0), machine)
        lines.append(
            f"Sampling: with all classes a step takes {1000 * whole.step:,.1f} ms and "
            f"{_mebibytes(sum(whole.memory.values()))} MiB, {whole.step / found.step:.2f} times as long. "
            f"{100 * found.whatever_the_rate:.1f} % of the sampled step is there whatever the rate."
        )
        from_ = sampling_pays_from(training, machine, _TIMES)
        lines.append(
            f"A sampled step is never {_TIMES:g} times as fast, however many classes there are."
            if from_ is None
            else f"A sampled step is {_TIMES:g} times as fast from {from_:,} classes on, "
            f"{-(-from_ // training.processes):,} for each process."
        )
    if training.processes > 1:
        every = replicated(training, machine)
        lines.append(
            f"Spreading: with all proxies on every process, which average their gradients, a step takes "
            f"{1000 * every.step:,.1f} ms, {every.step / found.step:.2f} times as long, takes "
            f"{_mebibytes(sum(every.memory.values()))} MiB of memory, and sends "
            f"{_mebibytes(every.work['network'].sent)} MiB."
        )
        from_ = sharding_pays_from(training, machine)
        lines.append(
            "Spreading is never faster, only smaller."
            if from_ is None
            else f"Spreading is faster from {from_:,} classes on."
        )
    return lines


def _mebibytes(size: float) -> str:
    return f"{size / 2**20:,.2f}" if size < 2**20 else f"{size / 2**20:,.1f}"


def _gigas(number: float) -> str:
    return f"{number / 1e9:,.3g}" if number < 1e11 else f"{number / 1e9:,.0f}"
