"""The errors that ichfast raises on purpose: each names the file or argument, and the fix."""


class IchfastError(Exception):
    """Base of the others; commands print its message in one line and exit with status 2."""


class DataError(IchfastError):
    """A data set, a file or a folder is not what was expected."""


class SplitError(DataError):
    """There are too few patients, or slices, for the parts that are asked for."""


class RecipeError(IchfastError):
    """A recipe has an unknown key or a value out of range."""


class CheckpointError(IchfastError):
    """A checkpoint or a weights file cannot be read, or belongs to another run."""


class OutputError(IchfastError):
    """The output folder cannot be used or written to."""


class DivergedError(IchfastError):
    """Training produced a non-finite or exploding loss."""


class TeamError(IchfastError):
    """Another of the processes that train together has died, or they have drifted apart."""
