"""Training and evaluation of a detector or a segmenter from a lazy config."""

import argparse
import functools
import logging
import math
import os

from torch import nn

from ..checkpoint import Checkpointer
from ..checkpoint.download import locate
from ..d2.engine import hooks
from ..d2.evaluation import flatten_results_dict, inference_on_dataset, print_csv_format
from ..d2.utils import comm
from .build import build
from .class_names import training_classes
from .cli import name_missing_values
from .config_file import load_config
from .hooks import BestWeights, ModelEMA, PeriodicCheckpointer, tidy_metrics
from .memory import explain_out_of_memory
from .model_check import check_num_classes, explain_misfit
from .reproducible import use_deterministic_algorithms
from .runs import begin_run, build_evaluation, evaluates, load_to_evaluate
from .samples import PredictionSamples, make_samples
from .settings import TrainSettings
from .tensorboard import TensorBoardWriter, make_writers
from .trainer import DetectionTrainer
from .training import build_optimizer, distribute, load_start, save_now, scale_learning_rate
from .tta import as_evaluated
from .validation import check_val_loss, validation_losses

__all__ = ["do_test", "do_train", "evaluate_only", "load_config", "run_detection"]

logger = logging.getLogger(__name__)


@name_missing_values()
def run_detection(args: argparse.Namespace) -> dict:
    """Train, or with args.eval_only evaluate, as the command line says; runs in every process.

    Args:
        args: of `default_argument_parser`.

    Returns:
        The last evaluation's results.

    Raises:
        UserError: for everything that the person can put right.
    """
    cfg = begin_run(args, TrainSettings.read)
    return evaluate_only(cfg, args.resume) if args.eval_only else do_train(cfg, args.resume)


def evaluate_only(cfg, resume: bool = False) -> dict:
    """Evaluate train.init_checkpoint or, with `resume`, the output folder's last checkpoint."""
    options = TrainSettings.read(cfg.train).init_options
    return do_test(cfg, load_to_evaluate(cfg, resume, options))


def do_test(cfg, model: nn.Module, samples: PredictionSamples | None = None) -> dict:
    """Evaluate a model on cfg.dataloader.test; {} where the config has no evaluator.

    With test-time augmentation and windows where `train` asks for them. An evaluator that
    takes `output_dir` and is not given one writes into `inference` in the run's output folder.
    `samples` keeps what is predicted on its images.
    """
    if not evaluates(cfg):
        return {}
    evaluator, loader = build_evaluation(cfg)
    check_num_classes(model, cfg, "test")
    # Scores of every class for every pixel are much to hold, and slow to compare twice.
    labels_only = True if getattr(evaluator, "labels_suffice", False) else None
    evaluated = as_evaluated(model, cfg.train, labels_only)
    with explain_out_of_memory(evaluated), explain_misfit(model):
        evaluators = evaluator if samples is None else [evaluator, samples]
        results = inference_on_dataset(evaluated, loader, evaluators)
    print_csv_format(results)
    return results


def do_train(cfg, resume: bool = False) -> dict:
    """Train as the config says and return the results of the evaluation at the end.

    Args:
        cfg: a config with model, dataloader, optimizer, lr_multiplier and train.
        resume: go on from the last checkpoint in train.output_dir, if there is one.
    """
    settings = TrainSettings.read(cfg.train)
    if cfg.train.init_checkpoint and not resume:
        locate(cfg.train.init_checkpoint)  # so that a wrong name shows before data is read
    if settings.val_loss_period:
        check_val_loss(cfg)
    use_deterministic_algorithms(settings.deterministic)
    model = build(cfg, "model").to(cfg.train.device)
    logger.info("Model:\n%s", model)
    optimizer = build_optimizer(cfg, model)
    train_loader = build(cfg, "dataloader.train")
    check_num_classes(model, cfg, "train")
    _try_evaluation(cfg, settings, model)
    scale_learning_rate(optimizer, train_loader, settings)
    trainer = DetectionTrainer(
        distribute(cfg, model),
        train_loader,
        optimizer,
        amp=settings.amp,
        amp_dtype=settings.amp_dtype,
        clip_grad=settings.clip_grad,
        accumulation_steps=settings.accumulation_steps,
    )
    checkpointer = Checkpointer(model, cfg.train.output_dir, trainer=trainer)
    checkpointer.metadata = training_classes(cfg)
    ema = ModelEMA(model, settings.ema_decay, checkpointer) if settings.ema_decay else None
    evaluation = _Evaluation(cfg, settings, trainer, checkpointer, ema)
    main = comm.is_main_process()
    scheduler = hooks.LRScheduler(scheduler=build(cfg, "lr_multiplier"))
    trainer.register_hooks([hooks.IterationTimer(), scheduler, ema])
    if main:
        trainer.register_hooks([PeriodicCheckpointer(checkpointer, **cfg.train.checkpointer)])
    evaluation.register_hooks()
    start = load_start(cfg, checkpointer, trainer, resume)
    if main:
        if start > 0:
            evaluation.resume_best()
            tidy_metrics(os.path.join(cfg.train.output_dir, "metrics.json"), start)
        writers, evaluation.tensorboard = make_writers(
            cfg.train.output_dir, cfg.train.max_iter, start, settings.tensorboard
        )
        trainer.register_hooks([hooks.PeriodicWriter(writers, period=cfg.train.log_period)])
    trainer.save_checkpoint = functools.partial(save_now, checkpointer, trainer)
    with explain_out_of_memory(trainer.model):
        trainer.train(start, cfg.train.max_iter)
    return evaluation.results


def _try_evaluation(cfg, settings: TrainSettings, model: nn.Module) -> None:
    """Build once what will evaluate, so that its faults show now and not after hours of training.

    The model's own are found where it is evaluated.
    """
    if evaluates(cfg):
        build_evaluation(cfg)
        as_evaluated(model, cfg.train)
    if settings.val_loss_period:
        build(cfg, "dataloader.val_loss")


class _Evaluation:
    """The evaluations of a training: results, validation losses, best weights, pictures."""

    tensorboard: TensorBoardWriter | None = None

    def __init__(self, cfg, settings: TrainSettings, trainer, checkpointer, ema: ModelEMA | None):
        self.results: dict = {}
        self._cfg, self._settings = cfg, settings
        self._trainer, self._ema = trainer, ema
        self._model = checkpointer.model
        self._best = None
        if settings.best_metric:
            self._best = BestWeights(checkpointer, settings.best_metric, settings.best_mode)
        wanted = settings.sample_images if settings.tensorboard and evaluates(cfg) else 0
        self._samples = make_samples(cfg, wanted)

    def register_hooks(self) -> None:
        """Evaluate every train.eval_period and measure losses every train.val_loss_period."""
        period = self._settings.val_loss_period
        if period:
            measure = self._measure_losses
            self._trainer.register_hooks([hooks.EvalHook(period, measure)])
        self._trainer.register_hooks([hooks.EvalHook(self._cfg.train.eval_period, self._evaluate)])

    def resume_best(self) -> None:
        if self._best:
            self._best.resume()

    @property
    def _evaluated(self) -> nn.Module:
        return self._ema.model if self._ema else self._model

    def _measure_losses(self) -> dict:
        losses = validation_losses(self._evaluated, self._cfg, seed=self._trainer.seed)
        return self._consider({"validation": losses})

    def _evaluate(self) -> dict:
        self.results.clear()
        self.results.update(do_test(self._cfg, self._evaluated, self._samples))
        if self.tensorboard and self._samples:
            self.tensorboard.add_pictures(self._samples.pictures(), self._trainer.storage.iter)
        return self._consider(self.results)

    def _consider(self, results: dict) -> dict[str, float]:
        # NaN is what cannot be measured; metrics.json, being JSON, leaves it out.
        flat = {k: v for k, v in flatten_results_dict(results).items() if math.isfinite(v)}
        group = (self._settings.best_metric or "").split("/")[0]
        if self._best and comm.is_main_process() and group in results:
            iteration = min(self._trainer.iter, self._trainer.max_iter - 1)
            self._best.consider(flat, self._evaluated, iteration)
        return flat
