"""The one exception that the command line turns into a plain message."""


class CircletError(ValueError):
    """Something that the user gave is wrong; the message names the value, the place and the remedy."""
