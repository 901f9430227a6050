"""The hooks a training run is made of."""

import datetime
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping

from fvcore.common.checkpoint import PeriodicCheckpointer as _PeriodicCheckpointer

from ..evaluation.evaluator import flatten_results_dict
from ..solver import LRMultiplier
from ..utils import comm
from ..utils.events import EventWriter
from .train_loop import HookBase

logger = logging.getLogger(__name__)


class IterationTimer(HookBase):
    """Records "time", the seconds an iteration takes, and sums up at the end."""

    def __init__(self, warmup_iter: int = 3):
        self._warmup_iter = warmup_iter

    def before_train(self):
        self._start, self._in_steps, self._timed = time.perf_counter(), 0.0, 0

    def before_step(self):
        self._step_start = time.perf_counter()

    def after_step(self):
        if self.trainer.iter - self.trainer.start_iter >= self._warmup_iter - 1:
            seconds = time.perf_counter() - self._step_start
            self.trainer.storage.put_scalars(time=seconds)
            self._in_steps += seconds
            self._timed += 1

    def after_train(self):
        if self._timed > 0:
            whole = datetime.timedelta(seconds=int(time.perf_counter() - self._start))
            pace = self._in_steps / self._timed
            logger.info("Whole training: %s; %.4f s an iteration without hooks", whole, pace)


class PeriodicWriter(HookBase):
    """Calls EventWriters every so many iterations, and after the last."""

    def __init__(self, writers: list[EventWriter], period: int = 20):
        self._writers = writers
        self._period = period

    def after_step(self):
        done = self.trainer.iter + 1
        if done % self._period == 0 or done == self.trainer.max_iter:
            for writer in self._writers:
                writer.write()

    def after_train(self):
        for writer in self._writers:
            # Hooks before this one may have put results (an evaluation's) since.
            writer.write()
            writer.close()


class PeriodicCheckpointer(_PeriodicCheckpointer, HookBase):
    """fvcore's PeriodicCheckpointer, stepped after every iteration."""

    def before_train(self):
        self.max_iter = self.trainer.max_iter

    def after_step(self):
        self.step(self.trainer.iter)


class LRScheduler(HookBase):
    """Steps a learning-rate scheduler every iteration and records "lr".

    What is None is taken from the trainer. The scheduler is torch's, or an fvcore ParamScheduler
    that scales the rates.
    """

    def __init__(self, optimizer=None, scheduler=None):
        self._optimizer = optimizer
        self._scheduler = scheduler

    def before_train(self):
        self._optimizer = self._optimizer or self.trainer.optimizer
        if self._scheduler is not None and not hasattr(self._scheduler, "step"):
            self._scheduler = LRMultiplier(
                self._optimizer,
                self._scheduler,
                self.trainer.max_iter,
                last_iter=self.trainer.iter - 1,
            )
        # The rate that stands for all is that of the most parameters.
        groups = self._optimizer.param_groups
        counts = Counter()
        for group in groups:
            counts[group["lr"]] += len(group["params"])
        most_common = counts.most_common(1)[0][0]
        self._group = [group["lr"] for group in groups].index(most_common)

    @property
    def scheduler(self):
        """The torch scheduler that is stepped."""
        return self._scheduler or self.trainer.scheduler

    def after_step(self):
        lr = self._optimizer.param_groups[self._group]["lr"]
        self.trainer.storage.put_scalar("lr", lr, smoothing_hint=False)
        self.scheduler.step()

    def state_dict(self):
        return self.scheduler.state_dict() if hasattr(self.scheduler, "state_dict") else {}

    def load_state_dict(self, state_dict):
        if hasattr(self.scheduler, "load_state_dict"):
            self.scheduler.load_state_dict(state_dict)


class _PeriodicHook(HookBase):
    """Base of what is done every so many iterations (0: never) and after the last."""

    def __init__(self, period: int, at_end: bool = True):
        self._period = period
        self._at_end = at_end

    def _do(self):
        raise NotImplementedError

    def after_step(self):
        done = self.trainer.iter + 1
        # The last iteration is after_train's.
        if self._period > 0 and done % self._period == 0 and done != self.trainer.max_iter:
            self._do()

    def after_train(self):
        # Not after an error: then iter never came up to max_iter.
        if self._at_end and self.trainer.iter >= self.trainer.max_iter:
            self._do()


class EvalHook(_PeriodicHook):
    """Evaluates every so many iterations and at the end, and records the results.

    `eval_function`, called in every process, returns a nested mapping of numbers.
    """

    def __init__(
        self, eval_period: int, eval_function: Callable[[], Mapping], eval_after_train: bool = True
    ):
        super().__init__(eval_period, eval_after_train)
        self._function = eval_function

    def _do(self):
        results = self._function() or {}
        if not isinstance(results, Mapping):
            raise TypeError(f"An evaluation returns a mapping, not {type(results)}.")
        for name, value in flatten_results_dict(results).items():
            self.trainer.storage.put_scalar(name, float(value), smoothing_hint=False)
        # Evaluation may take very different times in the processes.
        comm.synchronize()

    def after_train(self):
        super().after_train()
        del self._function  # it may hold model and trainer alive
