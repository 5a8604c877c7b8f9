"""circlet trains and measures embeddings.

A loss is a boundary (how a similarity becomes a logit) and an objective (how logits become a loss)
over references (what an anchor is compared with: its batch, given vectors, class proxies).

    from circlet import losses, references, metrics

    criterion = losses.CircleLoss(margin=0.25, scale=256)
    loss = criterion(embeddings, labels)
"""

import importlib
from types import ModuleType

__version__ = "0.1.0"

_PARTS = ("analysis", "data", "engine", "losses", "metrics", "models", "references", "report", "training")


def __getattr__(name: str) -> ModuleType:
    """Import a part when it is first used, so that `import circlet` and `circlet --help` stay quick."""
    if name in _PARTS:
        return importlib.import_module(f"circlet.{name}")
    raise AttributeError(f"module 'circlet' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PARTS])
