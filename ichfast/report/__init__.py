"""One self-contained HTML page about a run, made from its run folder alone."""

from pathlib import Path

__all__ = ["write_report"]


def write_report(folder: Path) -> Path:
    """Write the page of a run into its folder; where it is. DataError where there is no run."""
    from ichfast.report.page import write_report as write  # plots, which an audit has none of

    return write(folder)
