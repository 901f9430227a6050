"""Hooks of a training beyond those of the framework."""

import json
import logging
import os
import re
from pathlib import Path

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..checkpoint import Checkpointer
from ..d2.engine import HookBase, hooks
from ..d2.utils import comm
from ..files import atomic_write, remove_leftovers

__all__ = ["BestWeights", "ModelEMA", "PeriodicCheckpointer", "tidy_metrics"]

logger = logging.getLogger(__name__)


class PeriodicCheckpointer(hooks.PeriodicCheckpointer):
    """The framework's; it also keeps to `max_to_keep` after a restart and tidies up after kills.

    Takes the arguments of the framework's; to be registered in the main process alone.
    """

    def before_train(self) -> None:
        super().before_train()
        self.tidy_up(self.trainer.start_iter)

    def tidy_up(self, start: int) -> None:
        """Remove what killed runs have left half written, and more checkpoints than are to be kept.

        Args:
            start: the iteration that the training begins with.
        """
        folder = Path(self.checkpointer.save_dir)
        for path in remove_leftovers(folder):
            logger.info("Removed %s, which a killed run has left half written.", path)
        numbers = re.compile(rf"{re.escape(self.file_prefix)}_(\d{{7,}})\.pth")
        found = [(int(m[1]), path) for path in folder.iterdir() if (m := numbers.match(path.name))]
        recent = [str(path) for number, path in sorted(found) if number < start]
        keep = self.max_to_keep or len(recent)
        for path in recent[:-keep]:  # killed between writing one and removing the oldest
            os.remove(path)
        self.recent_checkpoints = recent[-keep:]


class ModelEMA(HookBase):
    """Keeps an exponential moving average of the model's weights and buffers.

    Early on the average forgets faster, as the weights then change faster: after n steps its decay
    is min(decay, (1 + n) / (10 + n)). `model` is the average, for evaluation; its weights are part
    of the trainer's checkpoints, and at the end they are saved as model_final_ema.pth.
    """

    def __init__(self, model: nn.Module, decay: float, checkpointer: Checkpointer | None = None):
        """Prepare to average.

        Args:
            model: the model that is trained, not wrapped for several processes.
            decay: between 0 and 1; about 1 - 1 / (the number of steps averaged over).
            checkpointer: saves the average at the end; None does not.
        """
        self._source = model
        self._decay = decay
        self._checkpointer = checkpointer
        self._steps = 0
        self._average = AveragedModel(model, multi_avg_fn=self._mix, use_buffers=True)
        self._average.requires_grad_(False)

    @property
    def model(self) -> nn.Module:
        """The averaged model, in eval mode."""
        return self._average.module.eval()

    def _mix(self, averages: list, values: list, _count: torch.Tensor) -> None:
        decay = min(self._decay, (1 + self._steps) / (10 + self._steps))
        get_ema_multi_avg_fn(decay)(averages, values, _count)

    def after_step(self) -> None:
        self._steps += 1
        self._average.update_parameters(self._source)

    def after_train(self) -> None:
        finished = self.trainer.iter >= self.trainer.max_iter
        if finished and self._checkpointer is not None and comm.is_main_process():
            self._checkpointer.save_weights("model_final_ema", self.model)

    def state_dict(self) -> dict:
        return {"steps": self._steps, "average": self._average.state_dict()}

    def load_state_dict(self, state_dict: dict) -> None:
        self._steps = state_dict["steps"]
        self._average.load_state_dict(state_dict["average"])


class BestWeights:
    """Keeps the weights with the best value of a metric as model_best.pth.

    What is best so far is read from that file, so that it survives a restart.
    """

    NAME = "model_best"

    def __init__(self, checkpointer: Checkpointer, metric: str, mode: str = "max"):
        """Prepare to keep the best.

        Args:
            checkpointer: saves the weights.
            metric: a name among the results of evaluation, such as "bbox/AP50".
            mode: "max" or "min".
        """
        self._checkpointer = checkpointer
        self._metric = metric
        self._sign = {"max": 1, "min": -1}[mode]
        self.best: float | None = None

    def resume(self) -> None:
        """Take over the best value of an earlier part of this training."""
        path = os.path.join(self._checkpointer.save_dir, f"{self.NAME}.pth")
        try:
            self.best = float(
                torch.load(path, mmap=True, weights_only=True)["metric"][self._metric]
            )
        except FileNotFoundError:
            return
        except Exception as error:  # whatever torch.load says of a file that is something else
            logger.warning("%s cannot be read (%r): the best is looked for anew.", path, error)

    def consider(self, results: dict[str, float], model: nn.Module, iteration: int) -> None:
        """Save the weights if their results are the best so far.

        Args:
            results: flat, as "bbox/AP50"; a value that is not finite is never the best.
            model: what was evaluated.
            iteration: after which.
        """
        value = results.get(self._metric)
        if value is None:
            logger.warning(
                "train.best_checkpoint.metric=%s is not among the results (%s): no best checkpoint "
                "is kept.",
                self._metric,
                ", ".join(sorted(results)) or "none are finite",
            )
            return
        if self.best is not None and self._sign * value <= self._sign * self.best:
            return
        self._checkpointer.save_weights(
            self.NAME, model, iteration=iteration, metric={self._metric: value}
        )
        logger.info("Best %s so far: %.5f after iteration %d", self._metric, value, iteration)
        self.best = value


def tidy_metrics(path: str, start_iter: int) -> None:
    """Leave out of a metrics.json what a resumed training will write again, or a kill cut off."""
    if not os.path.isfile(path):
        return
    kept = []
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if not isinstance(row, dict) or "iteration" not in row:
                continue
            # The results of an evaluation at the end of a shorter training stand under its end.
            last = start_iter - 1 if "total_loss" in row else start_iter
            if row["iteration"] <= last:
                kept.append(line)
    with atomic_write(path, "w") as file:
        file.writelines(kept)
