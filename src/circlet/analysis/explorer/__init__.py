"""The page that shows how each loss optimises in the plane of (s_n, s_p)."""

from circlet.analysis.explorer.entries import ENTRIES, Entry, Slider
from circlet.analysis.explorer.page import write_explorer

__all__ = ["ENTRIES", "Entry", "Slider", "write_explorer"]
