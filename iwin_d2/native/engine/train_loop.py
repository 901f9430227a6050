"""The loop and its hooks."""

import logging
import weakref

from ..utils.events import EventStorage

__all__ = ["HookBase", "TrainerBase"]


class HookBase:
    """Something done beside the training steps. `self.trainer` is the trainer it belongs to.

    Order: before_train, then for each iteration before_step, the step with after_backward inside,
    after_step, and at last after_train.
    """

    trainer: "TrainerBase" = None

    def before_train(self):
        """Called before the first iteration."""

    def after_train(self):
        """Called after the last iteration, also when an error ended the training."""

    def before_step(self):
        """Called before each iteration."""

    def after_backward(self):
        """Called after the backward pass of each iteration."""

    def after_step(self):
        """Called after each iteration."""

    def state_dict(self) -> dict:
        """What has to be saved to resume; {} for nothing."""
        return {}


class TrainerBase:
    """Runs hooks around `run_step`, which a subclass defines.

    Attributes:
        iter: the current iteration, from start_iter; max_iter after the last one.
        start_iter: the first iteration of this run.
        max_iter: where it ends.
        storage: the EventStorage of this run.
    """

    def __init__(self):
        self._hooks: list[HookBase] = []
        self.iter = self.start_iter = 0
        self.max_iter: int | None = None
        self.storage: EventStorage | None = None

    def register_hooks(self, hooks: list[HookBase | None]) -> None:
        """Add hooks, called in this order; None entries are skipped."""
        for hook in hooks:
            if hook is not None:
                # A weak reference: trainer and hooks would otherwise hold each other alive.
                hook.trainer = weakref.proxy(self)
                self._hooks.append(hook)

    def train(self, start_iter: int, max_iter: int) -> None:
        """Train from iteration start_iter up to and without max_iter."""
        logger = logging.getLogger(__name__)
        logger.info("Starting training from iteration %d", start_iter)
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
                self.iter += 1
            except Exception:
                logger.exception("Exception during training:")
                raise
            finally:
                self.after_train()

    def before_train(self):
        """Call the hooks' before_train."""
        for hook in self._hooks:
            hook.before_train()

    def after_train(self):
        """Call the hooks' after_train."""
        self.storage.iter = self.iter
        for hook in self._hooks:
            hook.after_train()

    def before_step(self):
        """Call the hooks' before_step."""
        self.storage.iter = self.iter
        for hook in self._hooks:
            hook.before_step()

    def after_backward(self):
        """Call the hooks' after_backward; run_step calls this."""
        for hook in self._hooks:
            hook.after_backward()

    def after_step(self):
        """Call the hooks' after_step."""
        for hook in self._hooks:
            hook.after_step()

    def run_step(self):
        """Do one iteration."""
        raise NotImplementedError

    def state_dict(self) -> dict:
        """The iteration, and the hooks' states by class name."""
        states = {type(hook).__qualname__: hook.state_dict() for hook in self._hooks}
        states = {name: state for name, state in states.items() if state}
        return {"iteration": self.iter, **({"hooks": states} if states else {})}

    def load_state_dict(self, state_dict: dict) -> None:
        """Take over iteration and hooks' states; a state without its hook is reported."""
        self.iter = state_dict["iteration"]
        for name, state in state_dict.get("hooks", {}).items():
            matching = [hook for hook in self._hooks if type(hook).__qualname__ == name]
            if matching:
                matching[0].load_state_dict(state)
            else:
                logging.getLogger(__name__).warning("No hook %s here: its state is unused.", name)
