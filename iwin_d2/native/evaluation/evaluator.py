"""Run a model over a data set and evaluate what it says."""

import datetime
import logging
import time
from collections import OrderedDict
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from ..utils import comm
from ..utils.logger import log_every_n_seconds

__all__ = [
    "DatasetEvaluator",
    "DatasetEvaluators",
    "inference_context",
    "inference_on_dataset",
]

logger = logging.getLogger(__name__)


class DatasetEvaluator:
    """Collects pairs of inputs and outputs, and evaluates them in the end."""

    def reset(self):
        """Forget everything: a new round begins."""

    def process(self, inputs: list, outputs: list):
        """Take one batch: the loader's dicts and the model's answers, one each for one image."""

    def evaluate(self):
        """Return results: {task: {metric: number}}, or None in processes other than the first."""


class DatasetEvaluators(DatasetEvaluator):
    """Several evaluators as one; their results are put together."""

    def __init__(self, evaluators: list[DatasetEvaluator]):
        self._evaluators = evaluators

    def reset(self):
        for evaluator in self._evaluators:
            evaluator.reset()

    def process(self, inputs, outputs):
        for evaluator in self._evaluators:
            evaluator.process(inputs, outputs)

    def evaluate(self):
        results = OrderedDict()
        for evaluator in self._evaluators:
            result = evaluator.evaluate()
            if comm.is_main_process() and result is not None:
                for key, value in result.items():
                    assert key not in results, f"Two evaluators return results named {key!r}."
                    results[key] = value
        return results


def inference_on_dataset(
    model, data_loader, evaluator: DatasetEvaluator | list[DatasetEvaluator] | None, callbacks=None
):
    """Run the model over the loader and return the evaluator's results, {} where it has none.

    Args:
        model: called with each batch, in eval mode if it is a module (its mode is put back).
        data_loader: with a length; yields lists of dicts.
        evaluator: one, several, or None just to measure the speed.
        callbacks: optional functions by name: on_start, before_inference, after_inference,
            on_end.
    """
    total = len(data_loader)
    logger.info("Start inference on %d batches", total)
    if not isinstance(evaluator, DatasetEvaluator):
        evaluator = DatasetEvaluators(evaluator or [])
    evaluator.reset()
    call = {**dict.fromkeys(_CALLBACKS, lambda: None), **(callbacks or {})}
    times = _Times(total)
    with ExitStack() as stack:
        if isinstance(model, nn.Module):
            stack.enter_context(inference_context(model))
        stack.enter_context(torch.no_grad())
        call["on_start"]()
        times.start_batches()
        for index, inputs in enumerate(data_loader):
            times.add("data", index)
            call["before_inference"]()
            outputs = model(inputs)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            call["after_inference"]()
            times.add("inference", index)
            evaluator.process(inputs, outputs)
            times.add("eval", index)
            times.log(index)
        call["on_end"]()
    times.log_total()
    results = evaluator.evaluate()
    return {} if results is None else results


_CALLBACKS = ("on_start", "before_inference", "after_inference", "on_end")


class _Times:
    """Where the time of an inference run goes; the first batches are warm-up."""

    def __init__(self, total: int):
        self.total = total
        self.warmup = min(5, total - 1)
        self.seconds = {"data": 0.0, "inference": 0.0, "eval": 0.0}
        self.batches = 0
        self.start = time.perf_counter()

    def start_batches(self) -> None:
        self.last = time.perf_counter()

    def add(self, name: str, index: int) -> None:
        """Count the time since the last call for `name`."""
        now = time.perf_counter()
        if index >= self.warmup:
            self.seconds[name] += now - self.last
            self.batches = index + 1 - self.warmup
        self.last = now

    def log(self, index: int) -> None:
        if index < self.warmup * 2 or self.batches == 0:
            return
        data, inference, evaluation = (value / self.batches for value in self.seconds.values())
        each = data + inference + evaluation
        eta = datetime.timedelta(seconds=int(each * (self.total - index - 1)))
        log_every_n_seconds(
            logging.INFO,
            f"Inference done {index + 1}/{self.total}. Dataloading: {data:.4f} s/iter. "
            f"Inference: {inference:.4f} s/iter. Eval: {evaluation:.4f} s/iter. "
            f"Total: {each:.4f} s/iter. ETA={eta}",
            n=5,
            name=__name__,
        )

    def log_total(self) -> None:
        seconds = time.perf_counter() - self.start
        logger.info("Total inference time: %s", datetime.timedelta(seconds=int(seconds)))
        if self.batches:
            logger.info(
                "Pure inference: %.4f s/iter on %d processes",
                *(self.seconds["inference"] / self.batches, comm.get_world_size()),
            )


@contextmanager
def inference_context(model: nn.Module):
    """Put the model in eval mode within the block, then back."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
