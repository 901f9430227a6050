"""The loop that trains a detector or a segmenter."""

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext

import torch
import torch.distributed as dist
from torch import nn

from ..d2.engine import TrainerBase
from ..d2.utils import comm
from ..d2.utils.events import EventStorage
from ..errors import DataError, TrainingError, UserError
from .interrupt import StopRequest
from .model_check import explain_misfit
from .reproducible import seed_everything
from .training import explain_optimizer_of_checkpoint

__all__ = ["DetectionTrainer"]

logger = logging.getLogger(__name__)


class DetectionTrainer(TrainerBase):
    """Trains a model that returns a dict of losses, with hooks around each step.

    Checkpoints of it (`state_dict`) hold what Detectron2's own trainers save: iteration, hooks,
    optimizer, grad_scaler; and, for a resumed training to be the same one, the seed and the place
    in the data. Random numbers need no saving: each step seeds them from the seed, the iteration
    and the process.

    Attributes:
        save_checkpoint: called, if set, when the training stops before its end in a state worth
            keeping; saves under the current `iter` and returns the file's path.
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
        accumulation_steps: int = 1,
        seed: int | None = None,
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
            accumulation_steps: batches whose gradients are averaged for one step.
            seed: of the model's random numbers; None draws one, the same in all processes.
        """
        super().__init__()
        model.train()
        self.model = model
        self.data_loader = data_loader
        self.optimizer = optimizer
        self.amp = amp
        self.clip_grad = clip_grad
        self.accumulation_steps = accumulation_steps
        self.seed = int(comm.shared_random_seed() if seed is None else seed)
        self.device = next(model.parameters()).device
        default = torch.float16 if self.device.type == "cuda" else torch.bfloat16
        self.amp_dtype = amp_dtype or default
        scaled = amp and self.amp_dtype == torch.float16
        self.grad_scaler = torch.amp.GradScaler(self.device.type, enabled=scaled)
        self.save_checkpoint: Callable[[], str] | None = None
        self._batches: Iterator | None = None
        self._batches_done = 0
        self._taken_over = False  # the optimizer's state is another one's, and has not stepped yet

    def train(self, start_iter: int, max_iter: int) -> None:
        """Train from iteration start_iter up to and without max_iter.

        Raises:
            UserError: for bad data, losses that are not finite, and when somebody asked to stop
                (see `StopRequest`); any other error is logged with its traceback before it goes on.
        """
        logger.info("Training from iteration %d to %d", start_iter, max_iter)
        self.iter = self.start_iter = start_iter
        self.max_iter = max_iter
        with EventStorage(start_iter) as self.storage, StopRequest() as self._stop:
            try:
                self.before_train()
                for self.iter in range(start_iter, max_iter):
                    self.before_step()
                    self.run_step()
                    self.after_step()
                    if self._stop.agreed:
                        raise self._stopped_on_request()
                # Hooks tell by this that the training came to its end.
                self.iter = max(start_iter, max_iter)
            except UserError:
                raise  # its one sentence is for whoever called; a traceback would bury it
            except Exception:
                logger.exception("Training failed at iteration %d:", self.iter)
                raise
            finally:
                self._batches = None  # ends the loading workers
                self.after_train()

    def run_step(self) -> None:
        """One step: losses and gradients of each batch, update, records."""
        assert self.model.training, "The model was left in eval mode."
        # Forward passes change these (the statistics of BatchNorms), also with bad numbers.
        buffers = [(buffer, buffer.clone()) for buffer in self.model.buffers()]
        self.optimizer.zero_grad()
        sums: dict[str, torch.Tensor] = {}
        images: list[str] = []
        data_time = 0.0
        for number in range(self.accumulation_steps):
            start = time.perf_counter()
            batch = self._next_batch()
            data_time += time.perf_counter() - start
            images += [str(d.get("file_name", f"image id {d.get('image_id')}")) for d in batch]
            seed_everything(self.seed, self.iter, number, comm.get_rank())
            try:
                losses = self._backward(batch, last=number + 1 == self.accumulation_steps)
            except FloatingPointError as error:  # the RPN or a cascade stage, before any loss
                raise self._diverged(str(error).rstrip("."), images, buffers) from error
            for name, loss in losses.items():
                sums[name] = sums.get(name, 0) + loss
        self.after_backward()
        # Reading the losses waits for the device: after backward, so that it has work meanwhile;
        # before the update, so that bad losses leave the weights untouched.
        local, means = self._reduce(sums, data_time)
        if not all(map(math.isfinite, means.values())):
            raise self._diverged(_describe(local, means), images, buffers, local)
        self._update()
        self._batches_done += self.accumulation_steps
        if comm.is_main_process():
            self.storage.put_scalar("data_time", means.pop("data_time"))
            self.storage.put_scalars(total_loss=sum(means.values()), **means)

    def _next_batch(self) -> list[dict]:
        for _ in range(2):
            if self._batches is None:
                self._batches = iter(self.data_loader)
            try:
                return next(self._batches)
            except StopIteration:
                self._batches = None
        raise DataError("The training loader has no batch: the training set is empty.")

    def _backward(self, batch: list[dict], last: bool) -> dict[str, torch.Tensor]:
        """Add the gradients of one batch; return its losses, detached, as parts of the mean."""
        # Processes exchange gradients once a step.
        waits = not last and hasattr(self.model, "no_sync")
        with self.model.no_sync() if waits else nullcontext():
            first = self.iter == self.start_iter
            with (
                explain_misfit(self.model) if first else nullcontext(),
                torch.autocast(self.device.type, dtype=self.amp_dtype, enabled=self.amp),
            ):
                losses = self.model(batch)
            if isinstance(losses, torch.Tensor):
                losses = {"loss": losses}
            parts = {name: loss / self.accumulation_steps for name, loss in losses.items()}
            self.grad_scaler.scale(sum(parts.values())).backward()
        return {name: part.detach().float() for name, part in parts.items()}

    def _reduce(
        self, losses: dict[str, torch.Tensor], data_time: float
    ) -> tuple[dict[str, float], dict[str, float]]:
        """This process's losses, and the means over all processes, data_time among them.

        Every process learns the means, so that all of them stop at one that is not finite, and
        agree in the same exchange whether somebody asked to stop.
        """
        names = sorted(losses)  # the same order in every process
        extra = torch.tensor([data_time, float(self._stop.wanted)], device=self.device)
        local = torch.cat([torch.stack([losses[name].sum() for name in names]), extra])
        values = local
        if comm.get_world_size() > 1:
            values = local.clone()
            dist.all_reduce(values)
            values /= comm.get_world_size()
        *means, self._stop.agreed = values.tolist()
        return dict(zip(names, local.tolist())), dict(zip([*names, "data_time"], means))

    def _diverged(
        self,
        reason: str,
        images: list[str],
        buffers: list[tuple[torch.Tensor, torch.Tensor]],
        losses: dict[str, float] | None = None,
    ) -> TrainingError:
        """Save the state before this step; return the error that says what there is to know.

        Args:
            reason: what was found.
            images: those of this process's batches.
            buffers: the model's buffers and their values before this step.
            losses: this process's, where all processes have come here together.
        """
        if losses is not None and comm.get_world_size() > 1:
            bad = not all(map(math.isfinite, losses.values()))
            images = [name for names in comm.all_gather(images if bad else []) for name in names]
        for buffer, value in buffers:
            buffer.copy_(value)
        rates = sorted({group["lr"] for group in self.optimizer.param_groups}, reverse=True)
        saved = ""
        if self.save_checkpoint and (losses is None or comm.is_main_process()):
            self.iter -= 1  # the last step done
            saved = f"; the state before it is saved in {self.save_checkpoint()}"
            self.iter += 1
        if losses is not None:
            comm.synchronize()  # the first to end would have the others ended, who may be saving
        return TrainingError(
            f"The training has diverged at iteration {self.iter}: {reason}; learning rate "
            f"{', '.join(f'{rate:.6g}' for rate in rates)}; images {', '.join(images)}: lower "
            f"optimizer.lr, set train.clip_grad, or look at these images and their annotations"
            f"{saved}."
        )

    def _stopped_on_request(self) -> TrainingError:
        saved = ""
        if self.save_checkpoint and comm.is_main_process():
            saved = f": {self.save_checkpoint()} is saved, --resume goes on from it"
        comm.synchronize()  # as where it has diverged
        return TrainingError(f"Stopped on request after iteration {self.iter}{saved}.")

    def _update(self) -> None:
        """Clip the gradients and step the optimizer."""
        if self.clip_grad is not None:
            self.grad_scaler.unscale_(self.optimizer)
            parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
            norm = nn.utils.clip_grad_norm_(parameters, self.clip_grad).item()
            if math.isfinite(norm):  # as it need not be while the loss scaler looks for its scale
                self.storage.put_scalar("grad_norm", norm)
        with explain_optimizer_of_checkpoint() if self._taken_over else nullcontext():
            self.grad_scaler.step(self.optimizer)
        self._taken_over = False
        self.grad_scaler.update()

    def state_dict(self) -> dict:
        """What resuming needs: iteration, hooks, optimizer, loss scale, seed, place in the data."""
        state = super().state_dict()
        state["optimizer"] = self.optimizer.state_dict()
        if self.grad_scaler.is_enabled():
            state["grad_scaler"] = self.grad_scaler.state_dict()
        state["seed"] = self.seed
        state["batches_done"] = self._batches_done
        if hasattr(self.data_loader, "state_dict"):
            state["data_loader"] = self.data_loader.state_dict()
        return state

    def load_state_dict(self, state_dict: dict) -> None:
        """Take over what `state_dict` gave; also what Detectron2's trainers save."""
        super().load_state_dict(state_dict)
        self.optimizer.load_state_dict(state_dict["optimizer"])
        self._taken_over = True
        if self.grad_scaler.is_enabled() and "grad_scaler" in state_dict:
            self.grad_scaler.load_state_dict(state_dict["grad_scaler"])
        self.seed = state_dict.get("seed", self.seed)
        self._batches_done = state_dict.get("batches_done", 0)
        if hasattr(self.data_loader, "resume") and "data_loader" in state_dict:
            self.data_loader.resume(state_dict["data_loader"], self._batches_done)
        else:
            logger.warning("The order of the images is not in the checkpoint: it begins anew.")


def _describe(local: dict[str, float], means: dict[str, float]) -> str:
    """The losses, this process's own where those are the bad ones."""
    bad_here = not all(map(math.isfinite, local.values()))
    values = {name: (local if bad_here else means)[name] for name in local}
    return "the loss is not finite: " + ", ".join(f"{k}={v:.6g}" for k, v in values.items())
