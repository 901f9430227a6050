"""Training and evaluation of a detector from a lazy config."""

import argparse
import inspect
import logging
import math
import os
from pydoc import locate

import torch
from omegaconf import DictConfig
from torch import nn

from ..checkpoint import Checkpointer
from ..config_overrides import apply_overrides
from ..d2.config import LazyConfig, instantiate
from ..d2.engine import create_ddp_model, default_setup, default_writers, hooks
from ..d2.evaluation import flatten_results_dict, inference_on_dataset, print_csv_format
from ..d2.utils import comm
from ..errors import CheckpointError, ConfigError
from .cli import make_output_dir, name_missing_values, pick_device, start_logs
from .config_check import check_config_keys
from .trainer import DetectionTrainer

__all__ = ["do_test", "do_train", "evaluate_only", "load_config", "run_detection"]

logger = logging.getLogger(__name__)


def load_config(config_file: str, overrides: list[str]):
    """Load a lazy config and apply overrides such as "train.max_iter=100".

    Raises:
        ConfigError: if there is no such file, or an override that cannot be applied.
    """
    if not config_file:
        raise ConfigError("No config: give --config-file FILE.")
    flags = [text for text in overrides if text.startswith("-")]
    if flags:
        raise ConfigError(f"{flags[0]} stands among the overrides: put flags before them.")
    return apply_overrides(LazyConfig.load(config_file), overrides)


@name_missing_values()
def run_detection(args: argparse.Namespace, results: dict | None = None) -> None:
    """Train, or with args.eval_only evaluate, as the command line says; runs in every process.

    Args:
        args: of `default_argument_parser`.
        results: takes the last evaluation's results.

    Raises:
        UserError: for everything that the person can put right.
    """
    cfg = load_config(args.config_file, args.opts)
    check_config_keys(cfg, args.config_file, training=not args.eval_only)
    make_output_dir(cfg.train.output_dir)
    start_logs(cfg.train.output_dir, comm.get_rank())
    default_setup(cfg, args)
    cfg.train.device = pick_device(cfg.train.device)
    found = evaluate_only(cfg, args.resume) if args.eval_only else do_train(cfg, args.resume)
    if results is not None:
        results.update(found)


def evaluate_only(cfg, resume: bool = False) -> dict:
    """Evaluate train.init_checkpoint or, with `resume`, the output folder's last checkpoint."""
    model = instantiate(cfg.model).to(cfg.train.device)
    checkpointer = Checkpointer(model, cfg.train.output_dir)
    path = cfg.train.init_checkpoint
    if resume and checkpointer.has_checkpoint():
        path = checkpointer.get_checkpoint_file()
    if not path:
        raise CheckpointError(
            "--eval-only needs weights: set train.init_checkpoint=FILE, or add --resume for the "
            "last checkpoint in train.output_dir."
        )
    checkpointer.load(path, checkpointables=[])
    return do_test(cfg, create_ddp_model(model, **cfg.train.get("ddp", {})))


def do_test(cfg, model: nn.Module) -> dict:
    """Evaluate a model on cfg.dataloader.test; {} where the config has no evaluator.

    An evaluator that takes `output_dir` and is not given one writes into `inference` in the run's
    output folder.
    """
    if "evaluator" not in cfg.dataloader:
        return {}
    evaluator = instantiate(_evaluator_config(cfg))
    results = inference_on_dataset(model, instantiate(cfg.dataloader.test), evaluator)
    print_csv_format(results)
    return results


def _evaluator_config(cfg):
    config = cfg.dataloader.evaluator
    target = config.get("_target_") if isinstance(config, DictConfig) else None
    target = locate(target) if isinstance(target, str) else target
    if target and "output_dir" in inspect.signature(target).parameters:
        config.setdefault("output_dir", os.path.join(cfg.train.output_dir, "inference"))
    return config


def do_train(cfg, resume: bool = False) -> dict:
    """Train as the config says and return the results of the evaluation at the end.

    Args:
        cfg: a config with model, dataloader, optimizer, lr_multiplier and train.
        resume: go on from the last checkpoint in train.output_dir, if there is one.
    """
    model = instantiate(cfg.model).to(cfg.train.device)
    logger.info("Model:\n%s", model)
    optimizer = _build_optimizer(cfg, model)
    train_loader = instantiate(cfg.dataloader.train)
    model = create_ddp_model(model, **cfg.train.get("ddp", {}))
    amp = cfg.train.get("amp") or {}
    trainer = DetectionTrainer(
        model,
        train_loader,
        optimizer,
        amp=amp.get("enabled", False),
        amp_dtype=_dtype(amp.get("dtype")),
        clip_grad=cfg.train.get("clip_grad"),
    )
    checkpointer = Checkpointer(model, cfg.train.output_dir, trainer=trainer)
    results: dict = {}

    def evaluate():
        results.clear()
        results.update(do_test(cfg, model))
        # AP is NaN where there is nothing to measure; metrics.json, being JSON, leaves it out.
        flat = flatten_results_dict(results)
        return {name: value for name, value in flat.items() if math.isfinite(value)}

    main = comm.is_main_process()
    writers = default_writers(cfg.train.output_dir, cfg.train.max_iter) if main else []
    trainer.register_hooks(
        [
            hooks.IterationTimer(),
            hooks.LRScheduler(scheduler=instantiate(cfg.lr_multiplier)),
            hooks.PeriodicCheckpointer(checkpointer, **cfg.train.checkpointer) if main else None,
            hooks.EvalHook(cfg.train.eval_period, evaluate),
            hooks.PeriodicWriter(writers, period=cfg.train.log_period) if main else None,
        ]
    )
    trainer.train(_load_start(cfg, checkpointer, trainer, resume), cfg.train.max_iter)
    return results


def _build_optimizer(cfg, model: nn.Module) -> torch.optim.Optimizer:
    cfg.optimizer.params.model = model
    try:
        return instantiate(cfg.optimizer)
    finally:
        cfg.optimizer.params.pop("model")  # a config is for settings, and can be saved


def _load_start(cfg, checkpointer: Checkpointer, trainer: DetectionTrainer, resume: bool) -> int:
    """Load weights, or all of a checkpoint to resume; return the iteration to start from."""
    resuming = resume and checkpointer.has_checkpoint()
    if resume and not resuming:
        start = cfg.train.init_checkpoint or "scratch"
        logger.info(
            "--resume: no checkpoint in %s yet, so starting from %s.", cfg.train.output_dir, start
        )
    checkpointer.resume_or_load(cfg.train.init_checkpoint, resume=resume)
    if not resuming:
        return 0
    if trainer.iter + 1 >= cfg.train.max_iter:
        logger.info(
            "Trained up to iteration %d already: raise train.max_iter to go on.", trainer.iter + 1
        )
    return trainer.iter + 1  # the checkpoint's is the last one done


def _dtype(name: str | None) -> torch.dtype | None:
    if name is None:
        return None
    dtype = getattr(torch, str(name), None)
    if dtype not in (torch.float16, torch.bfloat16):
        raise ConfigError(f"train.amp.dtype={name}: set it to float16 or bfloat16.")
    return dtype
