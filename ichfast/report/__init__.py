"""One self-contained HTML page about a run, made from its run folder alone."""

from ichfast.report.page import write_report

__all__ = ["write_report"]
