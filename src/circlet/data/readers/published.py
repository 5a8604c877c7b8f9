"""What was published of a data set's size, held beside what is found."""

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl


@dataclass(frozen=True)
class Published:
    """Counts of images and classes for each split.

    Attributes:
        splits: Images and classes of each split.
        classes: What a class is called: "ids", "classes".
        distractor: A label that the published counts of classes leave out.
    """

    splits: Mapping[str, tuple[int, int]]
    classes: str = "ids"
    distractor: str | None = None

    def compared(self, table: pl.DataFrame) -> list[str]:
        """A sentence for each split: as published, or both counts. A difference is no error by itself."""
        sentences = []
        for split, (images, classes) in self.splits.items():
            labels = table.filter(pl.col("split") == split)["label"]
            found = len(labels), len(set(labels) - {self.distractor})
            counted = f"{split}: {images:,} images of {classes:,} {self.classes}"
            if found == (images, classes):
                sentences.append(f"{counted}, as published")
            else:
                sentences.append(f"{counted} published, {found[0]:,} of {found[1]:,} found")
        return sentences
