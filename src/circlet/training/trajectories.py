"""Where in the plane of (s_n, s_p) the training samples cross the decision boundary."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from circlet.errors import CircletError
from circlet.losses import Hinge, Linear, PairLoss
from circlet.references import Batch, ReferenceSet

MOST_SAMPLES = 20_000
# What is known of a sample. Samples that were solved at first sight have not crossed yet.
_UNSEEN, _SOLVED, _UNSOLVED, _CROSSED = range(4)
# Pairs whose whole matrix is made at once.
_SMALL = 2**18
_BATCH = Batch()
_ARRAYS = ("state", "step", "negative", "positive")
# Numbers of the embeddings of batches that wait to be taken in.
_MOST_WAITING = 2**20


@dataclass(frozen=True)
class _Sight:
    step: int
    rows: Tensor
    criterion: PairLoss
    embeddings: Tensor
    labels: Tensor
    references: ReferenceSet | None


class Trajectories:
    """Notes for each training sample the first time that it is solved after it was seen unsolved.

    A sight is the sample as an anchor in a batch: its largest s_n and its smallest s_p, as the loss sees
    them, of the varied picture and before the step is taken. It is solved if logit_n(s_n) + logit_p(s_p) < 0.
    At most 20,000 samples are followed; of more, so many are drawn by the seed, an even share of all.

    Args:
        samples: Rows of the manifest.
        seed: Draws the samples that are followed.
        most: How many are followed at most.
    """

    def __init__(self, samples: int, seed: int, most: int = MOST_SAMPLES) -> None:
        self.samples = samples
        rows = torch.randperm(samples, generator=torch.Generator().manual_seed(seed))[:most]
        self._rows: NDArray[np.int64] = np.sort(rows.numpy())
        self._place = np.full(samples, -1, dtype=np.int64)
        self._place[self._rows] = np.arange(len(self._rows))
        self._waiting: list[_Sight] = []
        self._state = np.full(len(self._rows), _UNSEEN, dtype=np.uint8)
        self._step = np.zeros(len(self._rows), dtype=np.int64)
        self._negative = np.zeros(len(self._rows), dtype=np.float32)
        self._positive = np.zeros(len(self._rows), dtype=np.float32)

    def see(
        self,
        step: int,
        rows: Tensor,
        criterion: PairLoss,
        embeddings: Tensor,
        labels: Tensor,
        references: ReferenceSet | None,
    ) -> None:
        """Take in a batch.

        Args:
            step: The step that is being taken.
            rows: (batch,) rows of the manifest.
            criterion, embeddings, labels: The loss and what it was called with.
            references: What references gave for this batch; None for the batch itself.
        """
        sight = _Sight(step, rows, criterion, embeddings.detach(), labels, references)
        self._waiting.append(sight)
        # Proxies and learned boundaries change with the step, and a memory with the next batch.
        lasting = references is None and not any(True for _ in criterion.parameters())
        if not lasting or len(self._waiting) * embeddings.numel() > _MOST_WAITING:
            self._take_in()

    def _take_in(self) -> None:
        """Several batches in one go: between two steps the processor's caches hold other things."""
        waiting, self._waiting = self._waiting, []
        for sight in waiting:
            places = self._place[sight.rows.numpy()]
            # A sample that has crossed is done with. A place of -1 looks up another, and is left out anyway.
            awaited = np.flatnonzero((places >= 0) & (self._state[places] != _CROSSED))
            if len(awaited) == 0:
                continue
            embeddings, labels = sight.embeddings, sight.labels
            given = sight.references or _BATCH(embeddings, labels)
            if len(awaited) < len(places):
                chosen = torch.from_numpy(awaited).to(embeddings.device)
                self_index = None if given.self_index is None else given.self_index[chosen]
                given = replace(given, self_index=self_index, is_batch=False)
                embeddings, labels, places = embeddings[chosen], labels[chosen], places[awaited]
            negative, positive, solved = hardest_pairs(sight.criterion, embeddings, labels, given)
            complete = np.isfinite(negative) & np.isfinite(positive)
            self._note(sight.step, places[complete], negative[complete], positive[complete], solved[complete])

    def _note(
        self,
        step: int,
        places: NDArray[np.int64],
        negative: NDArray[Any],
        positive: NDArray[Any],
        solved: NDArray[np.bool_],
    ) -> None:
        crossing = np.flatnonzero(solved & (self._state[places] == _UNSOLVED))
        # A sample that is twice in the batch crosses with its first sight.
        now, first = np.unique(places[crossing], return_index=True)
        self._step[now] = step
        self._negative[now], self._positive[now] = negative[crossing[first]], positive[crossing[first]]
        self._state[now] = _CROSSED
        self._state[places[solved & (self._state[places] == _UNSEEN)]] = _SOLVED
        self._state[places[~solved & (self._state[places] != _CROSSED)]] = _UNSOLVED

    def save(self, path: Path) -> None:
        """Write trajectories.npz.

        It has of the samples that crossed their `row` in the manifest, the `step`, and s_n and s_p as
        `negative` and `positive`; and four numbers: all `samples`, those `followed`, and of these the ones
        still `unseen`, and the ones that were seen `unsolved` and have not crossed.
        """
        self._take_in()
        crossed = self._state == _CROSSED
        np.savez(
            path,
            row=self._rows[crossed],
            step=self._step[crossed],
            negative=self._negative[crossed],
            positive=self._positive[crossed],
            samples=np.array(self.samples),
            followed=np.array(len(self._rows)),
            unseen=np.array(np.sum(self._state == _UNSEEN)),
            unsolved=np.array(np.sum(self._state == _UNSOLVED)),
        )

    def state_dict(self) -> dict[str, Tensor]:
        """Copies of all that changes."""
        self._take_in()
        return {name: torch.from_numpy(getattr(self, f"_{name}").copy()) for name in _ARRAYS}

    def load_state_dict(self, state_dict: dict[str, Tensor]) -> None:
        """Put back what `state_dict` gave.

        Raises:
            CircletError: It is of another number of samples.
        """
        if len(state_dict["state"]) != len(self._rows):
            raise CircletError(
                f"the checkpoint follows {len(state_dict['state'])} training samples, but the data has "
                f"{len(self._rows)} to follow: put back the data that the run was begun with, or begin a "
                f"new run"
            )
        for name in _ARRAYS:
            getattr(self, f"_{name}")[:] = state_dict[name].numpy()


@torch.no_grad()
def hardest_pairs(
    criterion: PairLoss, embeddings: Tensor, labels: Tensor, given: ReferenceSet
) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.bool_]]:
    """The hardest pair of each anchor, and whether it is solved.

    Args:
        criterion: The loss.
        embeddings: (batch, dim).
        labels: (batch,) integers.
        given: What they are compared with.

    Returns:
        (batch,) the largest s_n, -inf without one; the smallest s_p, inf without one; and whether
        logit_n(s_n) + logit_p(s_p) < 0.
    """
    if given.centers == 1 and len(embeddings) * len(given.labels) > _SMALL:
        # Through the engine, and so in bounded memory: max(-s_p) and max(s_n).
        extremes = PairLoss(Linear(margin=0.0, scale=1.0), Hinge(), normalize=criterion.normalize)
        largest_distance, negative = extremes.statistics(embeddings, labels, given).values
        positive = -largest_distance
    else:  # of several centres the engine takes no maximum; a small matrix is quicker without it
        similarities, positives, negatives = criterion.similarities(embeddings, labels, given)
        positive = similarities.masked_fill(~positives, torch.inf).amin(dim=1)
        negative = similarities.masked_fill(~negatives, -torch.inf).amax(dim=1)
    boundary = criterion.boundary
    solved = boundary.negative_logit(negative) + boundary.positive_logit(positive) < 0
    # One transfer for all three.
    s_n, s_p, is_solved = torch.stack([negative, positive, solved.to(negative.dtype)]).cpu().numpy()
    return s_n, s_p, is_solved > 0
