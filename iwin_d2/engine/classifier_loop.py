"""The loop that trains image and video classifiers.

One function, `train`, from the first batch to the last. What comes before (config, data, model)
is in classification.py.
"""

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..d2.utils import comm
from ..d2.utils.events import EventStorage, EventWriter
from ..errors import DataError, TrainingError
from .classifier_inputs import InputMaker
from .classifier_settings import ClassifierSettings
from .hooks import ModelEMA
from .interrupt import StopRequest
from .reproducible import seed_everything

__all__ = ["TrainingState", "train"]

logger = logging.getLogger(__name__)


class TrainingState:
    """What a training has come to, beside the weights: what resuming needs.

    Random numbers need no saving: each batch seeds them from the seed, the iteration and the
    process.

    Attributes:
        iter: the last iteration done, -1 for none.
        optimizer: of the model's parameters; each group's "initial_lr" is its rate before the
            schedule.
        scaler: of the loss, for float16.
        loader: of the training batches, as `build_train_loader` makes it.
        ema: a moving average of the weights, or None.
        seed: of the model's random numbers.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        loader: Iterable,
        scaler: torch.amp.GradScaler,
        ema: ModelEMA | None = None,
        seed: int | None = None,
    ):
        self.iter = -1
        self.optimizer, self.loader, self.scaler, self.ema = optimizer, loader, scaler, ema
        self.seed = int(comm.shared_random_seed() if seed is None else seed)
        self._batches_done = 0
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])

    def batches(self) -> Iterator[list[dict]]:
        """The batches still to come; begins anew where the loader ends."""
        found = True
        while found:
            found = False
            for batch in self.loader:
                found = True
                self._batches_done += 1
                yield batch
        raise DataError("The training loader has no batch: the training set is empty.")

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {
            "iteration": self.iter,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "ema": self.ema.state_dict() if self.ema else None,
            "seed": self.seed,
            "batches_done": self._batches_done,
            "data_loader": self.loader.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.iter, self.seed = state["iteration"], state["seed"]
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scaler.is_enabled() and state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        if self.ema and state["ema"]:
            self.ema.load_state_dict(state["ema"])
        self._batches_done = state["batches_done"]
        self.loader.resume(state["data_loader"], self._batches_done)


def train(
    model: nn.Module,
    state: TrainingState,
    make_inputs: InputMaker,
    schedule: Callable[[float], float],
    settings: ClassifierSettings,
    max_iter: int,
    *,
    writers: Iterable[EventWriter] = (),
    log_period: int = 20,
    after_iteration: Callable[[EventStorage], None] = lambda storage: None,
    save: Callable[[], str] | None = None,
) -> None:
    """Train from the state's iteration up to and without max_iter.

    Args:
        model: gives logits Tensor[B, num_classes]; wrapped for several processes where there are.
        state: is changed as the training goes on.
        make_inputs: makes tensors of a batch.
        schedule: gives the factor on the learning rates at a progress in [0, 1).
        settings: of the config.
        max_iter: of the whole training.
        writers: of what is measured; called every `log_period` iterations.
        log_period: in iterations.
        after_iteration: evaluates, saves checkpoints, ...
        save: saves a checkpoint to resume from and returns its path, for when the training stops
            before its end in a state worth keeping.

    Raises:
        TrainingError: a loss is not finite, or somebody asked to stop.
        DataError: bad data.
    """
    common, rank, device = settings.common, comm.get_rank(), make_inputs.device
    parameters = [p for group in state.optimizer.param_groups for p in group["params"]]
    dtype = common.amp_dtype or (torch.float16 if device.type == "cuda" else torch.bfloat16)
    start = state.iter + 1
    logger.info("Training from iteration %d to %d", start, max_iter)
    with EventStorage(start) as storage, StopRequest() as stop, closing(state.batches()) as batches:
        for iteration in range(start, max_iter):
            storage.iter, began, waited = iteration, time.perf_counter(), 0.0
            for group in state.optimizer.param_groups:
                group["lr"] = group["initial_lr"] * schedule(iteration / max_iter)
            state.optimizer.zero_grad()
            loss, files = torch.zeros((), device=device), []
            for number in range(common.accumulation_steps):
                asked = time.perf_counter()
                batch = next(batches)
                waited += time.perf_counter() - asked
                files += [item.get("file_name", "?") for item in batch]
                seed_everything(state.seed, iteration, number, rank)
                inputs, labels = make_inputs(batch)
                inputs, labels = settings.mixing(inputs, labels, make_inputs.num_classes)
                last = number + 1 == common.accumulation_steps
                with _exchange_gradients(model, last):
                    with torch.autocast(device.type, dtype=dtype, enabled=common.amp):
                        logits = model(inputs)
                    part = settings.loss(logits, labels) / common.accumulation_steps
                    state.scaler.scale(part).backward()
                loss += part.detach()
            # Before the update, so that a bad loss leaves the weights untouched.
            value, stop.agreed = _mean_over_processes(loss, stop.wanted)
            if not math.isfinite(value):
                raise _diverged(iteration, value, state, files, save)
            if common.clip_grad is not None:
                state.scaler.unscale_(state.optimizer)
                norm = nn.utils.clip_grad_norm_(parameters, common.clip_grad)
                storage.put_scalar("grad_norm", float(norm))
            state.scaler.step(state.optimizer)
            state.scaler.update()
            if state.ema:
                state.ema.after_step()
            state.iter = iteration
            seconds = time.perf_counter() - began
            storage.put_scalars(total_loss=value, time=seconds, data_time=waited)
            storage.put_scalar("lr", max(g["lr"] for g in state.optimizer.param_groups), False)
            after_iteration(storage)
            if (iteration + 1) % log_period == 0 or iteration + 1 == max_iter:
                for writer in writers:
                    writer.write()
            if stop.agreed and iteration + 1 < max_iter:
                raise _stopped(iteration, save)


def _exchange_gradients(model: nn.Module, wanted: bool):
    """Within it, backward exchanges gradients with other processes, or leaves that for later."""
    return nullcontext() if wanted or not hasattr(model, "no_sync") else model.no_sync()


def _mean_over_processes(loss: Tensor, stop: bool) -> tuple[float, bool]:
    """The mean loss, and whether a process was asked to stop: the same in all of them."""
    values = torch.stack([loss, torch.full_like(loss, float(stop))])
    if comm.get_world_size() > 1:
        dist.all_reduce(values)
        values /= comm.get_world_size()
    value, asked = values.tolist()
    return value, asked > 0


def _diverged(
    iteration: int,
    value: float,
    state: TrainingState,
    files: list[str],
    save: Callable[[], str] | None,
) -> TrainingError:
    files = [name for names in comm.all_gather(files) for name in names]
    rates = sorted({group["lr"] for group in state.optimizer.param_groups}, reverse=True)
    saved = f"; the state before it is saved in {save()}" if save else ""
    return TrainingError(
        f"The training has diverged at iteration {iteration}: the loss is {value}; learning rate "
        f"{', '.join(f'{rate:.6g}' for rate in rates)}; files {', '.join(map(str, files))}: lower "
        f"optimizer.lr, set train.clip_grad, or look at these files{saved}."
    )


def _stopped(iteration: int, save: Callable[[], str] | None) -> TrainingError:
    saved = f": {save()} is saved, --resume goes on from it" if save else ""
    return TrainingError(f"Stopped on request after iteration {iteration}{saved}.")
