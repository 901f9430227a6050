"""Where the models' losses leave what is worth plotting."""

from ..utils.events import get_event_storage, has_event_storage

__all__ = ["put_scalars"]


def put_scalars(**scalars: float) -> None:
    """Put scalars into the event storage of the running training; outside one, do nothing."""
    if has_event_storage():
        get_event_storage().put_scalars(**scalars)
