"""Training: the detection trainer, parameter groups, and what the command-line tools share."""

from .param_groups import get_param_groups
from .trainer import DetectionTrainer

__all__ = ["DetectionTrainer", "get_param_groups"]
