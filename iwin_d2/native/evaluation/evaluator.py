"""Run a model over a data set, evaluate what it says, and bring results in the form of logs."""

import datetime
import logging
import time
from collections.abc import Mapping
from contextlib import contextmanager

import torch
from torch import nn

from ..utils import comm

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
        results = {}
        for evaluator in self._evaluators:
            result = evaluator.evaluate()
            if comm.is_main_process() and result is not None:
                both = results.keys() & result.keys()
                assert not both, f"Two evaluators return results named {both}."
                results.update(result)
        return results


def inference_on_dataset(
    model, data_loader, evaluator: DatasetEvaluator | list[DatasetEvaluator] | None
):
    """Run the model over the loader and return the evaluator's results, {} where it has none.

    A module is put in eval mode meanwhile. `evaluator` may be a list, or None for the speed alone.
    """
    total = len(data_loader)
    logger.info("Start inference on %d batches", total)
    if not isinstance(evaluator, DatasetEvaluator):
        evaluator = DatasetEvaluators(evaluator or [])
    evaluator.reset()
    start = last_log = time.perf_counter()
    with inference_context(model), torch.no_grad():
        for done, inputs in enumerate(data_loader, start=1):
            evaluator.process(inputs, model(inputs))
            now = time.perf_counter()
            if now - last_log >= 5 or done == total:
                last_log, pace = now, (now - start) / done
                eta = datetime.timedelta(seconds=int(pace * (total - done)))
                logger.info("Inference done %d/%d. %.4f s/iter. ETA=%s", done, total, pace, eta)
    return evaluator.evaluate() or {}


@contextmanager
def inference_context(model):
    """Put a module in eval mode within the block, then back."""
    training = isinstance(model, nn.Module) and model.training
    if training:
        model.eval()
    try:
        yield
    finally:
        if training:
            model.train()


def print_csv_format(results: Mapping) -> None:
    """Log main results so that they can be copied into a spreadsheet; per-class ones are not."""
    for task, values in results.items():
        if isinstance(values, Mapping):
            main = {name: value for name, value in values.items() if "-" not in name}
            logger.info("copypaste: Task: %s", task)
            logger.info("copypaste: %s", ",".join(main))
            logger.info("copypaste: %s", ",".join(f"{value:.4f}" for value in main.values()))
        else:
            logger.info("copypaste: %s=%s", task, values)


def flatten_results_dict(results: Mapping) -> dict:
    """Turn {"bbox": {"AP": 1}} into {"bbox/AP": 1}, at any depth."""
    flat = {}
    for key, value in results.items():
        if isinstance(value, Mapping):
            flat.update({f"{key}/{k}": v for k, v in flatten_results_dict(value).items()})
        else:
            flat[key] = value
    return flat
