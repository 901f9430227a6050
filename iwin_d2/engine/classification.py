"""Training and evaluation of an image or video classifier from a lazy config."""

import argparse
import logging
import math
import os

import torch
from torch import nn

from ..checkpoint import Checkpointer
from ..checkpoint.download import locate
from ..d2.evaluation import flatten_results_dict, inference_on_dataset, print_csv_format
from ..d2.utils import comm
from ..d2.utils.events import EventStorage
from ..data.loader import TrainLoader
from ..errors import ConfigError
from .build import build
from .class_names import training_classes
from .classifier_inputs import InputMaker, Scorer
from .classifier_loop import TrainingState, train
from .classifier_progress import ClassifierProgress
from .classifier_settings import ClassifierSettings, set_iterations
from .cli import name_missing_values
from .hooks import BestWeights, ModelEMA, PeriodicCheckpointer, tidy_metrics
from .memory import explain_out_of_memory
from .model_check import explain_misfit
from .reproducible import use_deterministic_algorithms
from .runs import begin_run, build_evaluation, evaluates, load_to_evaluate
from .sharding import Shards
from .tensorboard import make_writers
from .training import build_optimizer, distribute, load_start, save_now, scale_learning_rate

__all__ = ["do_test", "do_train", "evaluate_only", "run_classification"]

logger = logging.getLogger(__name__)


@name_missing_values()
def run_classification(args: argparse.Namespace) -> dict:
    """Train, or with args.eval_only evaluate, as the command line says; runs in every process.

    Args:
        args: of `default_argument_parser`.

    Returns:
        The last evaluation's results.

    Raises:
        UserError: for everything that the person can put right.
    """
    cfg = begin_run(args, ClassifierSettings.read)
    return evaluate_only(cfg, args.resume) if args.eval_only else do_train(cfg, args.resume)


def evaluate_only(cfg, resume: bool = False) -> dict:
    """Evaluate train.init_checkpoint or, with `resume`, the output folder's last checkpoint.

    Raises:
        ConfigError: the config evaluates nothing.
        CheckpointError: there are no weights, or they do not fit.
    """
    options = ClassifierSettings.read(cfg.train).common.init_options
    return do_test(cfg, load_to_evaluate(cfg, resume, options))


def do_test(cfg, model: nn.Module) -> dict:
    """Evaluate a model on cfg.dataloader.test; {} where the config has no evaluator."""
    if not evaluates(cfg):
        return {}
    evaluator, loader = build_evaluation(cfg)
    scorer = Scorer(model, _input_maker(cfg, model))
    with explain_out_of_memory(scorer, classifier=True), explain_misfit(model):
        results = inference_on_dataset(scorer, loader, evaluator)
    print_csv_format(results)
    return results


def do_train(cfg, resume: bool = False) -> dict:
    """Train as the config says and return the results of the last evaluation.

    Args:
        cfg: a config with model, dataloader, optimizer, lr_multiplier and train.
        resume: go on from the last checkpoint in train.output_dir, if there is one.
    """
    settings = ClassifierSettings.read(cfg.train)
    if cfg.train.init_checkpoint and not resume:
        locate(cfg.train.init_checkpoint)  # so that a wrong name shows before data is read
    use_deterministic_algorithms(settings.common.deterministic)
    model = build(cfg, "model").to(cfg.train.device)
    logger.info("Model:\n%s", model)
    optimizer = build_optimizer(cfg, model)
    loader = build(cfg, "dataloader.train")
    if not isinstance(loader, TrainLoader):
        raise ConfigError(
            f"dataloader.train makes a {type(loader).__name__}, in whose data no training can be "
            "resumed: call iwin_d2.data.loader.build_train_loader there."
        )
    if evaluates(cfg):
        evaluator, _ = build_evaluation(cfg)  # so that its faults show now
        check_classes = getattr(evaluator, "check_classes", None)
        if check_classes is not None:
            check_classes(_num_classes(model))
    set_iterations(cfg, loader.num_records)
    scale_learning_rate(optimizer, loader, settings.common)
    state = _make_state(cfg, model, optimizer, loader, settings)
    checkpointer = Checkpointer(model, cfg.train.output_dir, trainer=state)
    checkpointer.metadata = training_classes(cfg)
    run = _Run(cfg, settings, state, checkpointer, resume)
    run.start = load_start(cfg, checkpointer, state, resume)
    if settings.fsdp and comm.get_world_size() > 1:
        state.shards = Shards(model, optimizer)
    trained = state.shards.model if state.shards else distribute(cfg, model)
    with explain_out_of_memory(trained, classifier=True):
        run.train(trained)
    return run.results


def _make_state(cfg, model, optimizer, loader, settings: ClassifierSettings) -> TrainingState:
    common = settings.common
    device = torch.device(cfg.train.device)
    scaled = common.amp and settings.autocast_dtype(device) == torch.float16
    scaler = torch.amp.GradScaler(device.type, enabled=scaled)
    ema = ModelEMA(model, common.ema_decay) if common.ema_decay else None
    return TrainingState(optimizer, loader, scaler, ema)


def _input_maker(cfg, model: nn.Module) -> InputMaker:
    data = cfg.dataloader
    device = torch.device(cfg.train.device)
    return InputMaker(data.pixel_mean, data.pixel_std, _num_classes(model), device)


def _num_classes(model: nn.Module) -> int:
    count = getattr(model, "num_classes", None)
    if not isinstance(count, int):
        raise ConfigError(
            f"The config's model, a {type(model).__name__}, does not say its num_classes: take one "
            "of iwin_d2.modeling, or give it that attribute."
        )
    return count


class _Run:
    """What happens between the iterations: evaluation, checkpoints, records."""

    start = 0

    def __init__(
        self,
        cfg,
        settings: ClassifierSettings,
        state: TrainingState,
        checkpointer: Checkpointer,
        resume: bool,
    ):
        self.results: dict = {}
        self._resume = resume
        self._cfg, self._settings, self._state = cfg, settings, state
        self._checkpointer = checkpointer
        common = settings.common
        self._best = None
        if common.best_metric:
            self._best = BestWeights(checkpointer, common.best_metric, common.best_mode)

    def train(self, model: nn.Module) -> None:
        """Train the model, which may be wrapped for several processes."""
        cfg, common = self._cfg, self._settings.common
        writers = []
        if comm.is_main_process():
            if self._resume:  # also one that was killed before its first checkpoint
                tidy_metrics(os.path.join(cfg.train.output_dir, "metrics.json"), self.start)
                if self._best:
                    self._best.resume()
            options = cfg.train.output_dir, cfg.train.max_iter, self.start, common.tensorboard
            (_, *writers), _ = make_writers(*options)
            loader = self._state.loader
            epoch = loader.num_records / (loader.total_batch_size * common.accumulation_steps)
            writers = [ClassifierProgress(cfg.train.max_iter, epoch, self._state.unit), *writers]
            self._periodic = PeriodicCheckpointer(
                self._checkpointer, **cfg.train.checkpointer, max_iter=cfg.train.max_iter
            )
            self._periodic.tidy_up(self.start)
        try:
            train(
                model,
                self._state,
                _input_maker(cfg, self._checkpointer.model),
                build(cfg, "lr_multiplier"),
                self._settings,
                cfg.train.max_iter,
                writers=writers,
                log_period=cfg.train.log_period,
                after_iteration=self._after_iteration,
                at_end=self._at_end,
                save=self._save_now,
            )
        finally:
            for writer in writers:
                writer.close()

    def _after_iteration(self, storage: EventStorage) -> None:
        train, done = self._cfg.train, self._state.iter + 1
        if done % train.checkpointer.period == 0 or done == train.max_iter:
            self._gather(optimizer=True)
        if comm.is_main_process():
            self._periodic.step(self._state.iter)
        if train.eval_period > 0 and done % train.eval_period == 0 and done < train.max_iter:
            self._evaluate(storage)

    def _at_end(self, storage: EventStorage) -> None:
        """What may be left to do also where the training was killed after its last iteration."""
        main = comm.is_main_process()
        if self.start >= self._cfg.train.max_iter:
            self._gather(optimizer=True)
            if main:
                self._checkpointer.save("model_final", iteration=self._state.iter)
        if main and self._state.ema:
            self._checkpointer.save_weights("model_final_ema", self._state.ema.model)
        self._evaluate(storage)

    def _evaluate(self, storage: EventStorage) -> None:
        self._gather(optimizer=False)
        ema = self._state.ema
        model = ema.model if ema else self._checkpointer.model
        self.results.clear()
        self.results.update(do_test(self._cfg, model.to(self._cfg.train.device)))
        if self._state.shards:
            model.to("cpu")
        flat = flatten_results_dict(self.results)
        flat = {name: value for name, value in flat.items() if math.isfinite(value)}
        if flat and comm.is_main_process():
            storage.put_scalars(**flat, smoothing_hint=False)
            if self._best:
                self._best.consider(flat, model, self._state.iter)

    def _gather(self, optimizer: bool) -> None:
        if self._state.shards:
            self._state.shards.gather(optimizer)

    def _save_now(self) -> str:
        self._gather(optimizer=True)
        path = save_now(self._checkpointer, self._state) if comm.is_main_process() else ""
        comm.synchronize()  # the first to end would have the others ended, who may be saving
        return path
