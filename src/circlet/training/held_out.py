"""The held-out pictures, and the protocol by which they are measured."""

from dataclasses import dataclass
from statistics import fmean
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from circlet import metrics
from circlet.data import Manifest
from circlet.errors import CircletError
from circlet.training.embedding import Embedded
from circlet.training.run import Record

Protocol = Literal["leave-one-out", "query to gallery", "re-identification", "verification"]
_FOLDS = 10


@dataclass(frozen=True)
class Measured:
    """What a protocol found.

    Attributes:
        figures: Ready for JSON; which ones depends on the protocol.
        queries: How many queries they are over, or pairs.
        skipped_queries: How many were left out: queries without a positive, pairs with a broken picture.
    """

    figures: Record
    queries: int
    skipped_queries: int


@dataclass(frozen=True)
class HeldOut:
    """The held-out part of a manifest.

    Attributes:
        manifest: Its pictures.
        protocol: "verification" where there are pairs; "re-identification", with the rules of Market-1501,
            where queries look in a gallery and each picture has a camera; "query to gallery" without cameras;
            "leave-one-out" where test pictures are compared with each other.
    """

    manifest: Manifest
    protocol: Protocol

    @classmethod
    def of(cls, manifest: Manifest) -> "HeldOut":
        """
        Raises:
            CircletError: The manifest has neither test pictures nor query and gallery ones.
        """
        splits = set(manifest.table["split"])
        if {"query", "gallery"} <= splits:
            held_out = manifest.split("query", "gallery")
            table = held_out.table
            cameras = "camera" in table.columns and not (table["camera"].fill_null("") == "").any()
            return cls(held_out, "re-identification" if cameras else "query to gallery")
        if "test" in splits:
            held_out = manifest.split("test")
            pairs = "pair" in held_out.table.columns and held_out.table["pair"].is_not_null().all()
            return cls(held_out, "verification" if pairs else "leave-one-out")
        raise CircletError(
            f"nothing to measure on: the manifest's splits are {', '.join(sorted(splits))}. Give some "
            f"pictures the split 'test' (compared with each other), or 'query' and 'gallery'"
        )

    def measured(self, embedded: Embedded, recall_at: tuple[int, ...]) -> Measured:
        """The figures of these embeddings by this protocol.

        Args:
            embedded: Of the pictures of the manifest.
            recall_at: The k of recall@k, which is rank-k where there are cameras.

        Raises:
            CircletError: The pictures can't be measured so, such as where no query has a positive.
        """
        try:
            if self.protocol == "verification":
                return self._verification(embedded)
            if self.protocol == "re-identification":
                return self._reidentification(embedded, recall_at)
            return self._retrieval(embedded, recall_at)
        except ValueError as error:
            raise CircletError(f"the held-out pictures can't be measured: {error}") from error

    def _is_query(self, embedded: Embedded) -> Tensor:
        return torch.tensor((self.manifest.table["split"] == "query").to_list())[embedded.rows]

    def _retrieval(self, embedded: Embedded, recall_at: tuple[int, ...]) -> Measured:
        labels = self.manifest.label_ids()[0][embedded.rows]
        vectors, query = embedded.embeddings, self._is_query(embedded)
        if self.protocol == "leave-one-out":
            result = metrics.retrieval(vectors, labels, recall_at=recall_at)
        else:
            result = metrics.retrieval(
                vectors[query],
                labels[query],
                gallery=vectors[~query],
                gallery_labels=labels[~query],
                recall_at=recall_at,
            )
        values = result.to_dict()
        names = ("recall_at", "map_at_r", "r_precision", "mean_average_precision")
        return Measured({name: values[name] for name in names}, result.queries, result.skipped_queries)

    def _reidentification(self, embedded: Embedded, recall_at: tuple[int, ...]) -> Measured:
        query, vectors = self._is_query(embedded), embedded.embeddings
        ids, cameras = identities(self.manifest)[embedded.rows], self._cameras()[embedded.rows]
        result = metrics.reidentification(
            vectors[query],
            ids[query],
            cameras[query],
            vectors[~query],
            ids[~query],
            cameras[~query],
            rank_at=recall_at,
        )
        values = result.to_dict()
        figures = {"recall_at": values["rank_at"]}
        figures |= {
            name: values[name] for name in ("mean_average_precision", "mean_inverse_negative_penalty")
        }
        return Measured(figures, result.queries, result.queries_without_positive)

    def _cameras(self) -> Tensor:
        names = self.manifest.table["camera"].to_list()
        places = {name: place for place, name in enumerate(sorted(set(names)))}
        return torch.tensor([places[name] for name in names])

    def _verification(self, embedded: Embedded) -> Measured:
        """The mean over the lists of pairs, as folds are pieces of one list, and the accuracy of each."""
        first, second, same = self.manifest.pairs()
        place = torch.full((len(self.manifest),), -1)
        place[embedded.rows] = torch.arange(len(embedded.rows))
        lists = ["pairs"] * len(self.manifest)
        if "benchmark" in self.manifest.table.columns:
            lists = self.manifest.table["benchmark"].fill_null("pairs").to_list()
        list_of_pair = [lists[row] for row in first.tolist()]
        first, second = place[first], place[second]
        whole = (first >= 0) & (second >= 0)
        vectors = functional.normalize(embedded.embeddings)
        results: dict[str, metrics.Verification] = {}
        for name in dict.fromkeys(list_of_pair):
            chosen = whole & torch.tensor([other == name for other in list_of_pair])
            scores = (vectors[first[chosen]] * vectors[second[chosen]]).sum(dim=1)
            folds = _FOLDS if len(scores) >= _FOLDS else 0
            results[name] = metrics.verification(scores, same[chosen], folds=folds)
        figures: Record = {
            figure: fmean(values)
            for figure in ("accuracy", "equal_error_rate", "area")
            if None not in (values := [getattr(result, figure) for result in results.values()])
        }
        if len(results) > 1:
            figures["accuracy_of"] = {
                name: result.accuracy for name, result in results.items() if result.accuracy is not None
            }
        else:
            (result,) = results.values()
            figures["tar_at_far"] = {
                str(rate): share
                for rate, share in result.tar_at_far.items()
                if rate not in result.unresolved_far
            }
        return Measured(figures, int(whole.sum()), int((~whole).sum()))


def identities(manifest: Manifest) -> Tensor:
    """(pictures,) identities as re-identification counts them: integers from 1 on, or a mark.

    Where all labels are written as integers, "-1" is junk and "0" a distractor, as in Market-1501.
    """
    labels, names = manifest.label_ids()
    marks = {"-1": metrics.JUNK, "0": metrics.DISTRACTOR}
    if not all(name.removeprefix("-").isdigit() for name in names):
        marks = {}
    return torch.tensor([marks.get(name, place + 1) for place, name in enumerate(names)])[labels]
