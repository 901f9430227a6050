"""Learning rates that follow fvcore's ParamScheduler."""

from fvcore.common.param_scheduler import (
    CompositeParamScheduler,
    ConstantParamScheduler,
    LinearParamScheduler,
    ParamScheduler,
)
from torch.optim.lr_scheduler import LRScheduler

__all__ = ["LRMultiplier", "WarmupParamScheduler"]


class WarmupParamScheduler(CompositeParamScheduler):
    """Puts a warm-up in front of another scheduler."""

    def __init__(
        self,
        scheduler: ParamScheduler,
        warmup_factor: float,
        warmup_length: float,
        warmup_method: str = "linear",
        rescale_interval: bool = False,
    ):
        """Put a warm-up in front of `scheduler`.

        Args:
            scheduler: the schedule after the warm-up.
            warmup_factor: the first value, relative to the scheduler's own first value.
            warmup_length: the warm-up's share of the whole training, in [0, 1].
            warmup_method: "linear", or "constant" (stay at the first value).
            rescale_interval: whether to squeeze the whole of `scheduler` into what the warm-up
                leaves; by default the warm-up replaces its beginning.

        Raises:
            ValueError: for another warmup_method.
        """
        # Where the warm-up must arrive for the curve to have no jump.
        end_value = scheduler(0.0) if rescale_interval else scheduler(warmup_length)
        start_value = warmup_factor * scheduler(0.0)
        if warmup_method == "linear":
            warmup = LinearParamScheduler(start_value, end_value)
        elif warmup_method == "constant":
            warmup = ConstantParamScheduler(start_value)
        else:
            raise ValueError(f"warmup_method is 'linear' or 'constant', not {warmup_method!r}.")
        super().__init__(
            [warmup, scheduler],
            interval_scaling=["rescaled", "rescaled" if rescale_interval else "fixed"],
            lengths=[warmup_length, 1 - warmup_length],
        )


class LRMultiplier(LRScheduler):
    """Multiplies each group's initial learning rate with a ParamScheduler, once an iteration."""

    def __init__(self, optimizer, multiplier: ParamScheduler, max_iter: int, last_iter: int = -1):
        """Multiply the learning rates of `optimizer`.

        Args:
            optimizer: the optimizer.
            multiplier: maps the progress of training, in [0, 1], to a factor.
            max_iter: the number of iterations of the whole training.
            last_iter: the last iteration done.

        Raises:
            ValueError: if `multiplier` is no ParamScheduler.
        """
        if not isinstance(multiplier, ParamScheduler):
            raise ValueError(f"multiplier must be a ParamScheduler, not {type(multiplier)}.")
        self._multiplier = multiplier
        self._max_iter = max_iter
        super().__init__(optimizer, last_epoch=last_iter)

    def state_dict(self) -> dict:
        """The progress alone; the curve belongs to the config."""
        return {"base_lrs": self.base_lrs, "last_epoch": self.last_epoch}

    def get_lr(self) -> list[float]:
        """The learning rate of each parameter group at this iteration."""
        factor = self._multiplier(self.last_epoch / self._max_iter)
        return [base_lr * factor for base_lr in self.base_lrs]
