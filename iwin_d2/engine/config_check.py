"""What the training tool expects to find in a config, and misspelt keys that it would pass over."""

import difflib

from omegaconf import DictConfig, OmegaConf

from ..errors import ConfigError

__all__ = ["check_config_keys"]

# The keys that the tools read, Detectron2's and ours. A config may have others of its own; only
# those that nearly are one of these are taken for mistakes.
_KNOWN = {
    "": ("model", "dataloader", "optimizer", "lr_multiplier", "train"),
    "train": (
        "output_dir",
        "init_checkpoint",
        "init_options",
        "max_iter",
        "amp",
        "ddp",
        "checkpointer",
        "eval_period",
        "log_period",
        "device",
        "seed",
        "clip_grad",
        "cudnn_benchmark",
        "float32_precision",
        "deterministic",
        "accumulation_steps",
        "lr_reference_batch_size",
        "ema",
        "best_checkpoint",
        "val_loss_period",
        "test_time_augmentation",
        "sliding_window",
        "tensorboard",
        "epochs",
        "label_smoothing",
        "mixing",
        "fsdp",
    ),
    "train.epochs": ("max", "eval", "checkpoint"),
    "train.fsdp": ("enabled",),
    "train.mixing": ("mixup", "cutmix", "probability", "switch_probability"),
    "train.tensorboard": ("enabled", "sample_images"),
    "train.test_time_augmentation": ("enabled", "scales", "flip"),
    "train.sliding_window": ("enabled", "window", "stride", "batch_size"),
    "train.init_options": ("part", "classes", "leave_out", "num_heads", "channels"),
    "train.ema": ("enabled", "decay"),
    "train.best_checkpoint": ("metric", "mode"),
    "train.amp": ("enabled", "dtype"),
    "train.checkpointer": ("period", "max_to_keep"),
}
_ALWAYS = ("model", "dataloader", "train", "train.output_dir", "train.device")
# Of these, those that are mappings or calls.
_PARTS = ("model", "dataloader", "train", "dataloader.train", "optimizer", "lr_multiplier")
_EPOCHS = {
    "train.max_iter": "train.epochs.max",
    "train.eval_period": "train.epochs.eval",
    "train.checkpointer.period": "train.epochs.checkpoint",
}
_TRAINING = (
    "dataloader.train",
    "optimizer",
    "lr_multiplier",
    "train.max_iter",
    "train.checkpointer",
    "train.checkpointer.period",
    "train.eval_period",
    "train.log_period",
)


def check_config_keys(cfg: DictConfig, config_file: str, training: bool = True) -> None:
    """Find keys that are missing, and keys that look like a known one misspelt.

    Args:
        cfg: the config.
        config_file: its name, for the message.
        training: whether it is to train, not only to evaluate.

    Raises:
        ConfigError: naming the first such key and the right one.
    """
    for path, known in _KNOWN.items():
        section = OmegaConf.select(cfg, path) if path else cfg
        if not isinstance(section, DictConfig):
            continue
        for key in set(section) - set(known):
            near = difflib.get_close_matches(str(key), set(known), n=1, cutoff=0.8)
            if near:
                full = f"{path}.{key}".lstrip(".")
                raise ConfigError(
                    f"{config_file} sets {full}, which nothing reads. "
                    f"Did you mean {f'{path}.{near[0]}'.lstrip('.')}?"
                )
    for path in _ALWAYS + (_TRAINING if training else ()):
        if not _has(cfg, path) and not _is_in_epochs(cfg, path):
            raise ConfigError(
                f"{config_file} has no {path}: a config for this tool has model, dataloader, "
                "optimizer, lr_multiplier and train (see configs/common/train.py)."
            )
    _check_loaders(cfg)


def _check_loaders(cfg: DictConfig) -> None:
    """Check the counts that all loaders take, for some complain of them only when they are used."""
    for part, loader in cfg.dataloader.items_ex(resolve=False):
        if not isinstance(loader, DictConfig) or loader._is_none():
            continue
        for key, low in (("num_workers", 0), ("total_batch_size", 1), ("batch_size", 1)):
            if key not in loader or OmegaConf.is_interpolation(loader, key):
                continue
            count = loader[key]
            if type(count) is not int or count < low:
                raise ConfigError(
                    f"dataloader.{part}.{key}={count} makes no sense: set it to a whole number, "
                    f"{low} or more."
                )


def _is_in_epochs(cfg: DictConfig, path: str) -> bool:
    """Whether a classifier's config says in epochs what this setting says in iterations."""
    key = _EPOCHS.get(path)
    return key is not None and OmegaConf.select(cfg, key) is not None


def _has(cfg: DictConfig, path: str) -> bool:
    *parents, key = path.split(".")
    section = OmegaConf.select(cfg, ".".join(parents)) if parents else cfg
    if not isinstance(section, DictConfig):
        return False
    if OmegaConf.is_missing(section, key):  # ??? is reported elsewhere
        return True
    if key not in section:
        return False
    value = section[key]  # get() would not say which reference fails
    return value is not None and (path not in _PARTS or isinstance(value, DictConfig))
