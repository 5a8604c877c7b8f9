"""What the parser of recipes says, made plain."""

import difflib
import re
from collections.abc import Sequence
from inspect import isabstract, signature

from circlet.data import DataSource
from circlet.losses import PairLoss
from circlet.models import Backbone, Neck, Pooling


def explained(message: str, settings: Sequence[type]) -> str:
    """The parser's message in one paragraph, with what is near where a key or a class is misspelt.

    Args:
        message: The parser's.
        settings: The classes whose arguments are the keys of a recipe, besides those of the parts.
    """
    text = re.sub(r"\s*\n\s*", " ", message).strip().removesuffix(".")
    key = re.search(r"Option '([\w.]+)' is not accepted|unrecognized arguments: --([\w.]+)", text)
    if key is not None:
        known = _known_keys(settings)
        unknown = [word for word in (key[1] or key[2]).split(".") if word not in known]
        near = [match for word in unknown for match in difflib.get_close_matches(word, known, n=1)]
        hint = f" Did you mean {near[0]!r}?" if near else ""
        return f"{text}.{hint} `circlet train RECIPE --keys` prints all keys"
    path = re.search(r"Expected a dot import path string: (\S+)", text)
    if path is not None:
        # As circlet.losses has it, and not the module that it comes from.
        classes = {f"{'.'.join(part.__module__.split('.')[:2])}.{part.__name__}": part for part in _parts()}
        short = {part.__name__: name for name, part in classes.items()}
        near = difflib.get_close_matches(path[1].split(".")[-1], short, n=1)
        hint = f" Did you mean {short[near[0]]}?" if near else ""
        return f"{text}.{hint} circlet brings {', '.join(sorted(classes))}"
    value = re.search(
        r'key "([\w.]+)": Does not validate .*Subtypes: \[(.*?)\] Errors:.* Given value: (.*)', text
    )
    if value is not None:
        return f"{value[1]} is {value[3]!r}, but it must be {_in_words(value[2])}"
    return text


_TYPES = {
    "<class 'int'>": "a whole number",
    "<class 'float'>": "a number",
    "<class 'NoneType'>": "null",
    "tuple[int, int]": "two whole numbers in brackets",
    "tuple[float, float]": "two numbers in brackets",
    "list[float]": "numbers in brackets",
}


def _in_words(types: str) -> str:
    """Types as Python writes them, such as "<class 'int'>, typing.Literal['auto']"."""
    parts = re.findall(r"<class '[\w.]+'>|[\w.]+\[[^\]]*\]", types)
    # What is no plain type is a choice of words.
    return " or ".join(_TYPES.get(part) or ", ".join(re.findall(r"'([^']*)'", part)) for part in parts)


def _parts() -> list[type]:
    """The classes that a recipe may name, of those that circlet brings."""
    found = [part for base in (DataSource, PairLoss, Backbone, Pooling, Neck) for part in _subclasses(base)]
    return [part for part in found if not isabstract(part) and part.__module__.startswith("circlet.")]


def _known_keys(settings: Sequence[type]) -> set[str]:
    return {name for part in [*settings, *_parts()] for name in signature(part).parameters}


def _subclasses(base: type) -> list[type]:
    direct: list[type] = base.__subclasses__()
    return [base, *(deeper for part in direct for deeper in _subclasses(part))]
