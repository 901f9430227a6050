"""The loop that trains a detector."""

import logging
import math
import time
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import nn

from ..d2.engine import TrainerBase
from ..d2.utils import comm
from ..d2.utils.events import EventStorage
from ..errors import DataError, TrainingError, UserError

__all__ = ["DetectionTrainer"]

logger = logging.getLogger(__name__)


class DetectionTrainer(TrainerBase):
    """Trains a model that returns a dict of losses, with hooks around each step.

    Checkpoints of it (`state_dict`) hold what Detectron2's own trainers save: iteration, hooks,
    optimizer, grad_scaler.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable,
        optimizer: torch.optim.Optimizer,
        *,
        amp: bool = False,
        amp_dtype: torch.dtype | None = None,
        clip_grad: float | None = None,
    ):
        """Prepare to train; `train(start_iter, max_iter)` does it.

        Args:
            model: called with a batch in training mode, returns {name: scalar loss}.
            data_loader: yields batches, lists of dicts; begun again when it ends.
            optimizer: of the model's parameters.
            amp: mixed precision.
            amp_dtype: of mixed precision; None means float16 on CUDA and bfloat16 elsewhere. The
                loss is scaled for float16.
            clip_grad: the largest norm of all gradients together; None for no limit.
        """
        super().__init__()
        model.train()
        self.model = model
        self.data_loader = data_loader
        self.optimizer = optimizer
        self.amp = amp
        self.clip_grad = clip_grad
        self.device_type = next(model.parameters()).device.type
        default = torch.float16 if self.device_type == "cuda" else torch.bfloat16
        self.amp_dtype = amp_dtype or default
        scaled = amp and self.amp_dtype == torch.float16
        self.grad_scaler = torch.amp.GradScaler(self.device_type, enabled=scaled)
        self._batches: Iterator | None = None

    def train(self, start_iter: int, max_iter: int) -> None:
        """Train from iteration start_iter up to and without max_iter.

        Raises:
            UserError: for bad data and losses that are not finite; any other error is logged with
                its traceback before it goes on.
        """
        logger.info("Training from iteration %d to %d", start_iter, max_iter)
        self.iter = self.start_iter = start_iter
        self.max_iter = max_iter
        with EventStorage(start_iter) as self.storage:
            try:
                self.before_train()
                for self.iter in range(start_iter, max_iter):
                    self.before_step()
                    self.run_step()
                    self.after_step()
                # Hooks tell by this that the training came to its end.
                self.iter = max(start_iter, max_iter)
            except UserError:
                raise  # its one sentence is for whoever called; a traceback would bury it
            except Exception:
                logger.exception("Training failed at iteration %d:", self.iter)
                raise
            finally:
                self.after_train()

    def run_step(self) -> None:
        """One batch: losses, gradients, update, records."""
        assert self.model.training, "The model was left in eval mode."
        start = time.perf_counter()
        batch = self._next_batch()
        data_time = time.perf_counter() - start

        try:
            with torch.autocast(self.device_type, dtype=self.amp_dtype, enabled=self.amp):
                losses = self.model(batch)
        except FloatingPointError as error:  # the RPN or a cascade stage, before there is any loss
            reason = f"The training has diverged at iteration {self.iter}: {str(error).rstrip('.')}"
            raise self._stopped(reason, batch) from error
        if isinstance(losses, torch.Tensor):
            losses = {"loss": losses}
        total = sum(losses.values())
        self.optimizer.zero_grad()
        self.grad_scaler.scale(total).backward()
        self.after_backward()
        # Reading the losses waits for the device: after backward, so that it has work meanwhile;
        # before the update, so that bad losses leave the weights untouched.
        values = {name: loss.detach() for name, loss in losses.items()}
        self._check_finite(values, batch)
        self._update()
        self._record(values, data_time)

    def _next_batch(self) -> list[dict]:
        for _ in range(2):
            if self._batches is None:
                self._batches = iter(self.data_loader)
            try:
                return next(self._batches)
            except StopIteration:
                self._batches = None
        raise DataError("The training loader has no batch: the training set is empty.")

    def _check_finite(self, losses: Mapping[str, torch.Tensor], batch: list[dict]) -> None:
        """Raise TrainingError if a loss is NaN or infinite."""
        if torch.isfinite(torch.stack([loss.float().sum() for loss in losses.values()])).all():
            return
        values = ", ".join(f"{name}={loss.item():.6g}" for name, loss in losses.items())
        reason = f"The loss is not finite at iteration {self.iter}: {values}"
        raise self._stopped(reason, batch)

    def _stopped(self, reason: str, batch: list[dict]) -> TrainingError:
        """The error of a training that has diverged: why, the learning rates, the images."""
        rates = sorted({group["lr"] for group in self.optimizer.param_groups}, reverse=True)
        images = [str(d.get("file_name", f"image id {d.get('image_id')}")) for d in batch]
        return TrainingError(
            f"{reason}; learning rate {', '.join(f'{rate:.6g}' for rate in rates)}; images "
            f"{', '.join(images)}: lower optimizer.lr, set train.clip_grad, or look at these "
            "images and their annotations."
        )

    def _update(self) -> None:
        """Clip the gradients and step the optimizer."""
        if self.clip_grad is not None:
            self.grad_scaler.unscale_(self.optimizer)
            parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
            norm = nn.utils.clip_grad_norm_(parameters, self.clip_grad).item()
            if math.isfinite(norm):  # as it need not be while the loss scaler looks for its scale
                self.storage.put_scalar("grad_norm", norm)
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()

    def _record(self, losses: Mapping[str, torch.Tensor], data_time: float) -> None:
        """Put mean losses over all processes, their sum, and the time data took to the storage."""
        device = next(iter(losses.values())).device
        metrics = {name: loss.float() for name, loss in losses.items()}
        metrics["data_time"] = torch.tensor(data_time, device=device)
        metrics = comm.reduce_dict(metrics)
        if not comm.is_main_process():
            return
        metrics = dict(zip(metrics, torch.stack(list(metrics.values())).tolist()))
        self.storage.put_scalar("data_time", metrics.pop("data_time"))
        self.storage.put_scalars(total_loss=sum(metrics.values()), **metrics)

    def state_dict(self) -> dict:
        """What resuming needs: iteration, hooks, optimizer, and the loss scale if there is one."""
        state = super().state_dict()
        state["optimizer"] = self.optimizer.state_dict()
        if self.grad_scaler.is_enabled():
            state["grad_scaler"] = self.grad_scaler.state_dict()
        return state

    def load_state_dict(self, state_dict: dict) -> None:
        """Take over what `state_dict` gave."""
        super().load_state_dict(state_dict)
        self.optimizer.load_state_dict(state_dict["optimizer"])
        if self.grad_scaler.is_enabled() and "grad_scaler" in state_dict:
            self.grad_scaler.load_state_dict(state_dict["grad_scaler"])
