"""The commands. Each is imported when it is called, so that `circlet --help` answers at once."""

import importlib
import sys
from collections.abc import Sequence

from circlet import __version__
from circlet.errors import CircletError

# command: (module that has `main(arguments)`, what it does)
_COMMANDS = {
    "train": ("circlet.training.commands", "train an embedding by a recipe, or continue a run"),
    "evaluate": ("circlet.evaluation.commands", "measure a run, or embeddings from anywhere, by a protocol"),
    "compare": (
        "circlet.experiments.commands",
        "train recipes alike, and say how sure differences are",
    ),
    "sweep": ("circlet.experiments.commands", "search settings of a recipe, and show how they matter"),
    "merge": ("circlet.training.commands", "write a run's network and proxies into one file"),
    "plan": ("circlet.training.plan_command", "say what many classes on many processes will cost"),
    "report": ("circlet.training.commands", "write the page that shows a run"),
    "data": ("circlet.data.commands", "read a public data set, check one, or look at its pictures"),
    "explore": ("circlet.analysis.commands", "write the page that shows how each loss moves a pair"),
}


def _help() -> str:
    lines = [f"  circlet {name:<10} {text}" for name, (_, text) in _COMMANDS.items()]
    return "\n".join(
        [
            f"circlet {__version__}: train and measure embeddings",
            "",
            *lines,
            "",
            "`circlet COMMAND --help` says more. Begin with `circlet train glyphs`.",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code. What a user can mend is one message without a traceback."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help"):
        print(_help())
        return 0
    if given[0] == "--version":
        print(__version__)
        return 0
    name, *rest = given
    if name not in _COMMANDS:
        print(f"circlet: unknown command {name!r}\n\n{_help()}", file=sys.stderr)
        return 2
    try:
        getattr(importlib.import_module(_COMMANDS[name][0]), name)(rest)
    except CircletError as error:
        print(f"circlet {name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"circlet {name}: stopped", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
