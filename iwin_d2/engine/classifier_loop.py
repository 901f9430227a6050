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

from ..checkpoint.report import some
from ..d2.utils import comm
from ..d2.utils.events import EventStorage, EventWriter
from ..errors import DataError, TrainingError
from .classifier_inputs import InputMaker
from .classifier_settings import ClassifierSettings
from .hooks import ModelEMA
from .interrupt import StopRequest
from .model_check import explain_misfit
from .reproducible import seed_everything
from .sharding import Shards, whole
from .training import explain_optimizer_of_checkpoint

__all__ = ["TrainingState", "train"]

logger = logging.getLogger(__name__)

_FILES = 16  # that a message names


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
        unit: "clip" or "image", what the loader loads.
        batches_done: batches of all finished iterations.
        shards: of model and optimizer, where each process holds a part; then `gather` goes before
            `state_dict`.
        resumed: whether it is a checkpoint's, and the optimizer has not stepped since.
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
        self.unit = "clip" if loader.unit == "video" else "image"
        self.batches_done = 0
        self.shards: Shards | None = None
        self.resumed = False
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])

    def batches(self) -> Iterator[list[dict]]:
        """The batches still to come; begins anew where the loader ends."""
        found = True
        while found:
            found = False
            for batch in self.loader:
                found = True
                yield batch
        raise DataError("The training loader has no batch: the training set is empty.")

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {
            "iteration": self.iter,
            "optimizer": (
                self.shards.optimizer_state if self.shards else self.optimizer.state_dict()
            ),
            "scaler": self.scaler.state_dict(),
            "ema": self.ema.state_dict() if self.ema else None,
            "seed": self.seed,
            "batches_done": self.batches_done,
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
        self.batches_done = state["batches_done"]
        self.loader.resume(state["data_loader"], self.batches_done)
        self.resumed = True

    def set_rates(self, factor: float) -> None:
        """Set the learning rates to their initial ones times the schedule's factor."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor

    def update(self, clip_grad: float | None) -> float | None:
        """Step optimizer and moving average.

        Args:
            clip_grad: the largest norm of all gradients together; None for no limit.

        Returns:
            the norm of the gradients, where they are to be clipped.
        """
        norm = None
        if clip_grad is not None:
            self.scaler.unscale_(self.optimizer)
            parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
            norm = float(whole(nn.utils.clip_grad_norm_(parameters, clip_grad)))
        with explain_optimizer_of_checkpoint() if self.resumed else nullcontext():
            self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.ema:
            self.ema.after_step()
        self.resumed = False
        return norm


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
    at_end: Callable[[EventStorage], None] = lambda storage: None,
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
        at_end: likewise, when max_iter is reached, also where it was already.
        save: saves a checkpoint to resume from and returns its path, for when the training stops
            before its end in a state worth keeping.

    Raises:
        TrainingError: a loss is not finite, or somebody asked to stop.
        DataError: bad data.
        ConfigError: the model cannot take the data.
    """
    common, device, steps = settings.common, make_inputs.device, settings.common.accumulation_steps
    dtype = settings.autocast_dtype(device)
    start = state.iter + 1
    logger.info("Training from iteration %d to %d", start, max_iter)
    model.train()
    with EventStorage(start) as storage, StopRequest() as stop, closing(state.batches()) as batches:
        for iteration in range(start, max_iter):
            storage.iter, began, waited, samples = iteration, time.perf_counter(), 0.0, 0
            state.set_rates(schedule(iteration / max_iter))
            state.optimizer.zero_grad()
            # Forward passes change these (the statistics of BatchNorms), also with bad numbers.
            buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
            parts: list[tuple[Tensor, list[str]]] = []
            for number in range(steps):
                asked = time.perf_counter()
                batch = next(batches)
                waited += time.perf_counter() - asked
                seed_everything(state.seed, iteration, number, comm.get_rank())
                inputs, labels = make_inputs(batch)
                inputs, labels = settings.mixing(inputs, labels, make_inputs.num_classes)
                with _exchange_gradients(model, wanted=number + 1 == steps):
                    with (
                        explain_misfit(model) if iteration == start else nullcontext(),
                        torch.autocast(device.type, dtype=dtype, enabled=common.amp),
                    ):
                        logits = model(inputs)
                    loss = settings.loss(logits, labels) / steps
                    state.scaler.scale(loss).backward()
                parts.append((loss.detach(), [str(item.get("file_name")) for item in batch]))
                samples += len(inputs) * comm.get_world_size()
            # Before the update, so that a bad loss leaves the weights untouched.
            value, stop.agreed = _mean_over_processes([loss for loss, _ in parts], stop.wanted)
            if not math.isfinite(value):
                for buffer, before in buffers:
                    buffer.copy_(before)
                raise _diverged(value, state, parts, save)
            norm = state.update(common.clip_grad)
            state.iter, state.batches_done = iteration, state.batches_done + steps
            seconds = time.perf_counter() - began
            storage.put_scalars(total_loss=value, time=seconds, data_time=waited)
            storage.put_scalar(f"{state.unit}s_per_second", samples / seconds)
            storage.put_scalar("lr", max(g["lr"] for g in state.optimizer.param_groups), False)
            if norm is not None and math.isfinite(norm):  # not so while the scaler finds its scale
                storage.put_scalar("grad_norm", norm)
            after_iteration(storage)
            stopping = bool(stop.agreed) and iteration + 1 < max_iter
            if (iteration + 1) % log_period == 0 or iteration + 1 == max_iter or stopping:
                _write(writers)
            if stopping:
                raise _stopped(iteration, save)
        storage.iter = max(start, max_iter)
        at_end(storage)
        _write(writers)


def _write(writers: Iterable[EventWriter]) -> None:
    for writer in writers:
        writer.write()


def _exchange_gradients(model: nn.Module, wanted: bool):
    """Within it, backward exchanges gradients with other processes, or leaves that for later."""
    return nullcontext() if wanted or not hasattr(model, "no_sync") else model.no_sync()


def _mean_over_processes(losses: list[Tensor], stop: bool) -> tuple[float, bool]:
    """The mean loss, and whether a process was asked to stop: the same in all of them."""
    loss = torch.stack(losses).sum()
    values = torch.stack([loss, torch.full_like(loss, float(stop))])
    if comm.get_world_size() > 1:
        dist.all_reduce(values)
        values /= comm.get_world_size()
    value, asked = values.tolist()
    return value, asked > 0


def _diverged(
    value: float,
    state: TrainingState,
    parts: list[tuple[Tensor, list[str]]],
    save: Callable[[], str] | None,
) -> TrainingError:
    """Save the state before this iteration; name the files of the batches with bad losses."""
    bad = [name for loss, names in parts if not math.isfinite(loss) for name in names]
    files = [name for names in comm.all_gather(bad) for name in names]
    rates = sorted({group["lr"] for group in state.optimizer.param_groups}, reverse=True)
    saved = f"; the state before it is saved in {save()}" if save else ""
    return TrainingError(
        f"The training has diverged at iteration {state.iter + 1}: the loss is {value}; learning "
        f"rate {', '.join(f'{rate:.6g}' for rate in rates)}; files {some(files, _FILES)}: lower "
        f"optimizer.lr, set train.clip_grad, or look at these files{saved}."
    )


def _stopped(iteration: int, save: Callable[[], str] | None) -> TrainingError:
    saved = f": {save()} is saved, --resume goes on from it" if save else ""
    return TrainingError(f"Stopped on request after iteration {iteration}{saved}.")
