"""The loop and its hooks."""

import logging
import weakref

from ..utils.events import EventStorage

logger = logging.getLogger(__name__)


class HookBase:
    """Something done beside the training steps of `self.trainer`.

    Order: before_train, then for each iteration before_step, the step with after_backward inside,
    after_step, and at last after_train, also when an error ended the training.
    """

    trainer: "TrainerBase" = None

    def before_train(self):
        pass

    def after_train(self):
        pass

    def before_step(self):
        pass

    def after_backward(self):
        pass

    def after_step(self):
        pass

    def state_dict(self) -> dict:
        """What has to be saved to resume; {} for nothing."""
        return {}


class TrainerBase:
    """Runs hooks around `run_step`, which a subclass defines, with an EventStorage `storage`.

    `iter` goes from `start_iter` up to and without `max_iter`, and is `max_iter` after the last.
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
        for hook in self._hooks:
            hook.before_train()

    def after_train(self):
        self.storage.iter = self.iter
        for hook in self._hooks:
            hook.after_train()

    def before_step(self):
        self.storage.iter = self.iter
        for hook in self._hooks:
            hook.before_step()

    def after_backward(self):
        """Call the hooks' after_backward; run_step calls this."""
        for hook in self._hooks:
            hook.after_backward()

    def after_step(self):
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
        hooks = {type(hook).__qualname__: hook for hook in reversed(self._hooks)}
        for name, state in state_dict.get("hooks", {}).items():
            if name in hooks:
                hooks[name].load_state_dict(state)
            else:
                logger.warning("No hook %s here: its state is unused.", name)
