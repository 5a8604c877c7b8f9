"""Checks that the settings of several parts share."""

from circlet.errors import CircletError


def check_at_least(section: str, settings: object, **least: float) -> None:
    """
    Raises:
        CircletError: A value of the settings is below its least; the message names it by its key.
    """
    for name, smallest in least.items():
        if getattr(settings, name) < smallest:
            value = getattr(settings, name)
            raise CircletError(f"{section}.{name} must be at least {smallest:g}, but got {value}")
