"""Run a model over a data set and evaluate what it says."""

import datetime
import logging
from collections import OrderedDict
from contextlib import ExitStack, contextmanager

import torch
from fvcore.common.timer import Timer
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
    model, data_loader, evaluator: DatasetEvaluator | list[DatasetEvaluator] | None
):
    """Run the model over the loader and return the evaluator's results, {} where it has none.

    Args:
        model: called with each batch, in eval mode if it is a module (its mode is put back).
        data_loader: with a length; yields lists of dicts.
        evaluator: one, several, or None just to measure the speed.
    """
    total = len(data_loader)
    logger.info("Start inference on %d batches", total)
    if not isinstance(evaluator, DatasetEvaluator):
        evaluator = DatasetEvaluators(evaluator or [])
    evaluator.reset()
    warmup = min(5, total - 1)
    timer, seconds, counted = Timer(), dict.fromkeys(("data", "inference", "eval"), 0.0), 0

    def time_of(part):
        if counted > 0:
            seconds[part] += timer.seconds()
        timer.reset()

    with ExitStack() as stack:
        if isinstance(model, nn.Module):
            stack.enter_context(inference_context(model))
        stack.enter_context(torch.no_grad())
        for index, inputs in enumerate(data_loader):
            counted = max(index + 1 - warmup, 0)
            time_of("data")
            outputs = model(inputs)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            time_of("inference")
            evaluator.process(inputs, outputs)
            time_of("eval")
            if counted > warmup:
                _log_progress(index + 1, total, {k: v / counted for k, v in seconds.items()})
    if counted:
        pace = seconds["inference"] / counted
        logger.info("Pure inference: %.4f s/iter on %d processes", pace, comm.get_world_size())
    results = evaluator.evaluate()
    return {} if results is None else results


def _log_progress(done: int, total: int, seconds: dict[str, float]) -> None:
    each = sum(seconds.values())
    eta = datetime.timedelta(seconds=int(each * (total - done)))
    parts = ". ".join(f"{part}: {value:.4f} s/iter" for part, value in seconds.items())
    log_every_n_seconds(
        logging.INFO, f"Inference done {done}/{total}. {parts}. ETA={eta}", n=5, name=__name__
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
