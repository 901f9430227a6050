"""Errors whose message is meant for the person at the keyboard, not for a debugger."""

import os
import sys


class UserError(Exception):
    """Bad input, said in one sentence: what is wrong, where, and what to do about it.

    The command-line tools print the sentence alone and exit with status 1.
    """

    @property
    def sentence(self) -> str:
        """The message itself, also after a data-loader worker has wrapped it in a traceback."""
        text = str(self)
        marker = f"{type(self).__name__}: "
        return text.rsplit(marker, 1)[-1].strip() if "Traceback" in text else text


class DataError(UserError):
    """A data set, image or annotation that cannot be used."""


class AugmentationError(DataError):
    """An image that is whole, but that the configured augmentations fail on."""


class ConfigError(UserError):
    """A config file, config key or override that cannot be used."""


class CheckpointError(UserError):
    """A checkpoint file that cannot be read, or that does not fit the model."""


class TrainingError(UserError):
    """A training that cannot go on, such as a loss that is no number any more."""


class ProcessError(UserError):
    """A process or machine of the run that has ended, or that cannot be reached."""


def shown_at_import(error: UserError) -> UserError:
    """Return the error to raise, and have its sentence alone shown where nobody catches it.

    For errors that come up while programs are importing, before they can catch any.
    """
    shown = sys.excepthook

    def show(kind, value, trace) -> None:
        if value is error and os.environ.get("IWIN_D2_TRACEBACK", "0") in ("", "0"):
            print(value, file=sys.stderr)
        else:
            shown(kind, value, trace)

    sys.excepthook = show
    return error
