"""The logits of an anchor's positives one by one, for losses that need every one of them."""

import math

from torch import Tensor

from circlet.engine.reductions import Anchors, Places


class Each:
    """The logits themselves: (anchors, samples of the largest class), -inf where an anchor has fewer.

    Args:
        first: (anchors,) the place of the first reference of each anchor's class; its logit comes first.
        size: (anchors,) how many references there are of that class, from there on.
        scale: Of the logits.
        like: Gives dtype and device.
    """

    def __init__(self, first: Tensor, size: Tensor, scale: float, like: Tensor) -> None:
        width = int(size.amax()) if len(size) > 0 else 0
        self.value = like.new_full((len(size), width), -math.inf)
        self.scale = scale
        self.first = first

    def add_rows(self, logits: Tensor, anchors: Anchors, places: Places) -> None:
        rows, columns = (logits != -math.inf).nonzero(as_tuple=True)
        at = _position(self.first, rows, columns, anchors, places)
        self.value[at] = logits[rows, columns] * self.scale

    def add_both(self, logits: Tensor, rows: slice, columns: slice, workspace: Tensor) -> None:
        self.add_rows(logits, rows, columns.start)
        self.add_rows(logits.T, columns, rows.start)

    def result(self) -> Tensor:
        return self.value

    def pair_gradients(self, gradient: Tensor) -> "EachGradients":
        """What the gradient (anchors, most) of the result means for the pairs."""
        return EachGradients(self.first, gradient * self.scale)


class EachGradients:
    """The gradients of the logits, put back to their pairs.

    Args:
        first: (anchors,) see `Each`.
        gradient: (anchors, most) times the scale.
    """

    def __init__(self, first: Tensor, gradient: Tensor) -> None:
        self._first = first
        self._gradient = gradient

    def rows_(self, logits: Tensor, anchors: Anchors, places: Places) -> Tensor:
        rows, columns = (logits != -math.inf).nonzero(as_tuple=True)
        at = _position(self._first, rows, columns, anchors, places)
        logits.zero_()
        logits[rows, columns] = self._gradient[at]
        return logits

    def both_(self, logits: Tensor, rows: slice, columns: slice, workspace: Tensor) -> Tensor:
        by_column = self.rows_(workspace.copy_(logits).T, columns, rows.start).T
        return self.rows_(logits, rows, columns.start).add_(by_column)


def _position(
    first: Tensor, rows: Tensor, columns: Tensor, anchors: Anchors, places: Places
) -> tuple[Tensor, Tensor]:
    """Where in (anchors, most) the pairs of a tile are."""
    anchor = rows + anchors.start if isinstance(anchors, slice) else anchors[rows]
    place = columns + (places[rows] if isinstance(places, Tensor) else places)
    return anchor, place - first[anchor]
