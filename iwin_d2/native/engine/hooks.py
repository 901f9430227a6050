"""The hooks a training run is made of."""

import datetime
import logging
import math
import operator
import time
from collections import Counter
from collections.abc import Callable, Mapping

from fvcore.common.checkpoint import Checkpointer
from fvcore.common.checkpoint import PeriodicCheckpointer as _PeriodicCheckpointer

from ..evaluation.testing import flatten_results_dict
from ..solver import LRMultiplier
from ..utils import comm
from ..utils.events import EventWriter
from .train_loop import HookBase

logger = logging.getLogger(__name__)


class CallbackHook(HookBase):
    """A hook made of functions; each is called with the trainer."""

    def __init__(self, *, before_train=None, after_train=None, before_step=None, after_step=None):
        self._before_train = before_train
        self._after_train = after_train
        self._before_step = before_step
        self._after_step = after_step

    def before_train(self):
        if self._before_train:
            self._before_train(self.trainer)

    def after_train(self):
        if self._after_train:
            self._after_train(self.trainer)
        # They may hold the trainer alive.
        self._before_train = self._after_train = self._before_step = self._after_step = None

    def before_step(self):
        if self._before_step:
            self._before_step(self.trainer)

    def after_step(self):
        if self._after_step:
            self._after_step(self.trainer)


class IterationTimer(HookBase):
    """Records "time", the seconds an iteration takes, and sums up at the end."""

    def __init__(self, warmup_iter: int = 3):
        """Time iterations, the first `warmup_iter` left out."""
        self._warmup_iter = warmup_iter

    def before_train(self):
        self._start = time.perf_counter()
        self._in_steps = 0.0
        self._timed = 0

    def before_step(self):
        self._step_start = time.perf_counter()

    def after_step(self):
        if self.trainer.iter - self.trainer.start_iter + 1 <= self._warmup_iter:
            return
        seconds = time.perf_counter() - self._step_start
        self.trainer.storage.put_scalars(time=seconds)
        self._in_steps += seconds
        self._timed += 1

    def after_train(self):
        if self._timed == 0:
            return
        total = datetime.timedelta(seconds=int(time.perf_counter() - self._start))
        steps = datetime.timedelta(seconds=int(self._in_steps))
        logger.info(
            "Timed %d iterations: %s (%.4f s/it); the whole training took %s",
            *(self._timed, steps, self._in_steps / self._timed, total),
        )


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


class BestCheckpointer(HookBase):
    """Keeps the checkpoint with the best value of a metric; register it after EvalHook."""

    def __init__(
        self,
        eval_period: int,
        checkpointer: Checkpointer,
        val_metric: str,
        mode: str = "max",
        file_prefix: str = "model_best",
    ):
        """Keep the best checkpoint.

        Args:
            eval_period: the EvalHook's period.
            checkpointer: saves it.
            val_metric: the metric's name in the storage, such as "bbox/AP50".
            mode: "max" or "min", which is best.
            file_prefix: the file's name.
        """
        if mode not in ("max", "min"):
            raise ValueError(f"mode is 'max' or 'min', not {mode!r}.")
        self._period = eval_period
        self._checkpointer = checkpointer
        self._metric = val_metric
        self._is_better = operator.gt if mode == "max" else operator.lt
        self._file_prefix = file_prefix
        self.best_metric: float | None = None
        self.best_iter: int | None = None

    def _check(self):
        latest = self.trainer.storage.latest().get(self._metric)
        if latest is None:
            logger.warning("Metric %s does not exist: no best checkpoint is kept.", self._metric)
            return
        value, iteration = latest
        if not math.isfinite(value) or iteration == self.best_iter:
            return
        if self.best_metric is None or self._is_better(value, self.best_metric):
            self._checkpointer.save(self._file_prefix, iteration=iteration)
            logger.info("Best %s so far: %.5f after iteration %d", self._metric, value, iteration)
            self.best_metric, self.best_iter = value, iteration

    def after_step(self):
        done = self.trainer.iter + 1
        if self._period > 0 and done % self._period == 0 and done != self.trainer.max_iter:
            self._check()

    def after_train(self):
        if self.trainer.iter >= self.trainer.max_iter:
            self._check()


class LRScheduler(HookBase):
    """Steps a learning-rate scheduler every iteration and records "lr"."""

    def __init__(self, optimizer=None, scheduler=None):
        """Step `scheduler`; what is None is taken from the trainer.

        Args:
            optimizer: a torch optimizer.
            scheduler: a torch scheduler, or an fvcore ParamScheduler that scales the rates.
        """
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
        self._group = self._most_common_group(self._optimizer)

    @staticmethod
    def _most_common_group(optimizer) -> int:
        """The parameter group whose rate stands for all: the most frequent initial rate's."""
        counts = Counter()
        for group in optimizer.param_groups:
            counts[group["lr"]] += len(group["params"])
        most_common = counts.most_common(1)[0][0]
        return [group["lr"] for group in optimizer.param_groups].index(most_common)

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
            logger.info("Loading the scheduler's state ...")
            self.scheduler.load_state_dict(state_dict)


class EvalHook(HookBase):
    """Evaluates every so many iterations and at the end, and records the results."""

    def __init__(
        self, eval_period: int, eval_function: Callable[[], Mapping], eval_after_train: bool = True
    ):
        """Call `eval_function`.

        Args:
            eval_period: iterations between evaluations; 0 for none before the end.
            eval_function: no arguments; returns a nested mapping of numbers. Called in every
                process.
            eval_after_train: whether to evaluate after the last iteration.
        """
        self._period = eval_period
        self._function = eval_function
        self._eval_after_train = eval_after_train

    def _evaluate(self):
        results = self._function()
        if results:
            if not isinstance(results, Mapping):
                raise TypeError(f"An evaluation returns a mapping, not {type(results)}.")
            for name, value in flatten_results_dict(results).items():
                self.trainer.storage.put_scalar(name, float(value), smoothing_hint=False)
        # Evaluation may take very different times in the processes.
        comm.synchronize()

    def after_step(self):
        done = self.trainer.iter + 1
        # The last iteration's evaluation is after_train's.
        if self._period > 0 and done % self._period == 0 and done != self.trainer.max_iter:
            self._evaluate()

    def after_train(self):
        # Not after an error: then iter never came up to max_iter.
        if self._eval_after_train and self.trainer.iter >= self.trainer.max_iter:
            self._evaluate()
        del self._function  # it may hold model and trainer alive
