"""Figures of a run, and the page that shows them."""

from circlet.report.page import write_report

__all__ = ["write_report"]
