"""What every run of a training tool begins with, and what every evaluation is made of."""

import argparse
import os
from collections.abc import Callable
from typing import Any

from omegaconf import DictConfig
from torch import nn

from ..checkpoint import Checkpointer, LoadOptions
from ..config_overrides import parameter_names
from ..d2.engine import default_setup
from ..d2.utils import comm
from ..errors import CheckpointError, ConfigError
from .build import build
from .cli import make_output_dir, pick_device, start_logs
from .config_check import check_config_keys
from .config_file import load_config

__all__ = ["begin_run", "build_evaluation", "evaluates", "load_to_evaluate"]


def begin_run(args: argparse.Namespace, read_settings: Callable[[DictConfig], Any]) -> DictConfig:
    """Read and check the config, and set up output folder, logs, seeds and device.

    Args:
        args: of `default_argument_parser`.
        read_settings: raises for a `train` section that makes no sense.

    Raises:
        UserError: for everything that the person can put right.
    """
    cfg = load_config(args.config_file, args.opts)
    check_config_keys(cfg, args.config_file, training=not args.eval_only)
    read_settings(cfg.train)
    make_output_dir(cfg.train.output_dir)
    start_logs(cfg.train.output_dir, comm.get_rank())
    default_setup(cfg, args)
    cfg.train.device = pick_device(cfg.train.device)
    return cfg


def load_to_evaluate(cfg, resume: bool, options: LoadOptions) -> nn.Module:
    """Build the model with train.init_checkpoint or, with `resume`, the last checkpoint.

    Args:
        cfg: the config.
        resume: whether to take the last checkpoint of the output folder, if there is one.
        options: how train.init_checkpoint is loaded.

    Raises:
        ConfigError: the config evaluates nothing.
        CheckpointError: there are no weights, or they do not fit.
    """
    if not evaluates(cfg):
        raise ConfigError("--eval-only, but the config has no dataloader.evaluator: add one.")
    model = build(cfg, "model").to(cfg.train.device)
    checkpointer = Checkpointer(model, cfg.train.output_dir)
    resume = resume and checkpointer.has_checkpoint()
    if not resume and not cfg.train.init_checkpoint:
        raise CheckpointError(
            "--eval-only needs weights: set train.init_checkpoint=FILE, or add --resume for the "
            "last checkpoint in train.output_dir."
        )
    checkpointer.resume_or_load(
        cfg.train.init_checkpoint, resume=resume, fill=True, options=options
    )
    return model


def evaluates(cfg) -> bool:
    """Whether the config has an evaluator."""
    return cfg.dataloader.get("evaluator") is not None


def build_evaluation(cfg) -> tuple[Any, Any]:
    """The evaluator and the loader of its data set, which is checked when it is loaded.

    An evaluator that takes `output_dir` and is not given one writes into `inference` in the run's
    output folder.
    """
    config = cfg.dataloader.evaluator
    if isinstance(config, DictConfig) and "output_dir" in parameter_names(config.get("_target_")):
        config.setdefault("output_dir", os.path.join(cfg.train.output_dir, "inference"))
    # The loader first: evaluators say less of a data set that cannot be read.
    loader = build(cfg, "dataloader.test")
    return build(cfg, "dataloader.evaluator"), loader
