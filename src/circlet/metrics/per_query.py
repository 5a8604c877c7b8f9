"""The figures of each query: their means by group, and how sure these means are."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

_DRAWS_AT_ONCE = 2**22


@dataclass(frozen=True, eq=False)
class PerQuery:
    """Figures of every query, in the order of the queries.

    Attributes:
        figures: By name, (queries,) float64 on the CPU; NaN where a query has none.
    """

    figures: Mapping[str, Tensor]

    @property
    def counted(self) -> Tensor:
        """(queries,) True for the queries that have figures."""
        return ~next(iter(self.figures.values())).isnan()

    def means(self) -> dict[str, float]:
        """The mean of each figure over the queries that have it."""
        return {name: float(values.nanmean()) for name, values in self.figures.items()}

    def by_group(self, groups: Tensor) -> dict[int, dict[str, float]]:
        """The means of each group of queries, such as those of a class, a camera, or a label of one's own.

        Args:
            groups: (queries,) integers.

        Returns:
            For each group the mean of each figure over its queries that have one (NaN if none has), and as
            "queries" and "skipped_queries" how many have and have not.

        Raises:
            ValueError: There is not one integer for each query.
        """
        groups = self._checked(groups)
        counted = self.counted
        names, of = torch.unique(groups, return_inverse=True)
        total = torch.bincount(of, minlength=len(names))
        used = torch.bincount(of[counted], minlength=len(names))
        means = {
            name: torch.bincount(of[counted], values[counted], minlength=len(names)) / used
            for name, values in self.figures.items()
        }
        return {
            group: {name: float(values[place]) for name, values in means.items()}
            | {"queries": int(used[place]), "skipped_queries": int(total[place] - used[place])}
            for place, group in enumerate(names.tolist())
        }

    def intervals(
        self, *, level: float = 0.95, draws: int = 1000, seed: int = 0, groups: Tensor | None = None
    ) -> dict[str, tuple[float, float]]:
        """Bootstrap intervals of the means: percentiles over sets of queries drawn with replacement.

        They say how much a mean depends on which queries were asked, not how much on the training.

        Args:
            level: The share of the draws inside the interval, between 0 and 1.
            draws: How many sets are drawn.
            seed: Of the draws.
            groups: (queries,) integers: whole groups are drawn instead of queries. With the labels as
                groups the intervals hold for other classes too, and are wider: queries of one class are
                alike.

        Returns:
            For each figure the lower and the upper end.

        Raises:
            ValueError: A number is out of range, or there is not one group for each query.
        """
        if not 0 < level < 1:
            raise ValueError(f"level must be between 0 and 1, such as 0.95, but got {level}")
        if draws < 1:
            raise ValueError(f"draws must be at least 1, but got {draws}")
        counted = self.counted
        values = torch.stack([figure[counted] for figure in self.figures.values()], dim=1)
        sizes = torch.ones(len(values), dtype=torch.float64)
        if groups is not None:
            names, of = torch.unique(self._checked(groups)[counted], return_inverse=True)
            sizes = torch.bincount(of, minlength=len(names)).double()
            values = values.new_zeros(len(names), values.shape[1]).index_add_(0, of, values)
        generator = torch.Generator().manual_seed(seed)
        number = len(values)
        means = []
        for drawn in torch.split(torch.arange(draws), max(1, _DRAWS_AT_ONCE // number)):
            chosen = torch.randint(number, (len(drawn), number), generator=generator)
            times = torch.zeros(len(drawn), number, dtype=torch.float64)
            times.scatter_add_(1, chosen, torch.ones((), dtype=torch.float64).expand_as(chosen))
            means.append(times @ values / (times @ sizes)[:, None])
        ends = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
        low, high = torch.quantile(torch.cat(means), ends, dim=0).tolist()
        return dict(zip(self.figures, zip(low, high, strict=True), strict=True))

    def _checked(self, groups: Tensor) -> Tensor:
        number = len(next(iter(self.figures.values())))
        if not isinstance(groups, Tensor):
            raise ValueError(
                f"groups must be a tensor, but got {type(groups).__name__}; torch.as_tensor makes one"
            )
        if groups.shape != (number,) or groups.is_floating_point():
            raise ValueError(
                f"groups must be integers of shape ({number},), one for each query, "
                f"but got {groups.dtype} of shape {tuple(groups.shape)}"
            )
        return groups.cpu()
