"""Exceptions of the library.

Every one derives from `LotteryError` and from the built-in it specialises, so `except ValueError` keeps working. A
message says what is wrong, where, the values, and the way out.
"""


class LotteryError(Exception):
    """Base of every error that this library raises on purpose."""


class OptionError(LotteryError, ValueError):
    """An option has a value that it cannot have."""


class UnknownNameError(LotteryError, LookupError):
    """A name is not registered: finder, granularity, architecture, export carrier."""


class UnitError(LotteryError, ValueError):
    """Units do not fit the numbers or the model at hand."""


class CheckpointError(LotteryError, ValueError):
    """A checkpoint is missing, damaged, of a foreign format, or not comparable with another one."""


class TicketError(LotteryError, ValueError):
    """A ticket is empty, damaged, or does not belong to the model or ticket it meets."""


class AdapterError(LotteryError, ValueError):
    """A ticket cannot be trained, merged, exported or loaded as asked."""


class FrozenWeightMovedError(LotteryError, RuntimeError):
    """A weight outside the ticket changed during training."""


class DataError(LotteryError, ValueError):
    """A data set or a sentence cannot be used as it is."""


class WriteError(LotteryError, OSError):
    """A file or folder could not be written: the disk is full, or the place may not be written."""


class HubError(LotteryError, OSError):
    """The Hugging Face Hub could not be reached or refused."""
