"""The `train` section of image and video classifiers: train.py's, and what is theirs alone."""

from .train import train

train.update(
    # Each of these that is None follows from train.epochs.
    max_iter=None,
    eval_period=None,
    epochs={"max": 30, "eval": 1, "checkpoint": 1},
    label_smoothing=0.0,
    # Of the images or clips of a batch: alphas of mixup and CutMix, 0 for none of it; how often a
    # batch is mixed; how often by CutMix where both are wanted.
    mixing={"mixup": 0.0, "cutmix": 0.0, "probability": 1.0, "switch_probability": 0.5},
)
# Several processes: each holds a part of weights, gradients and the optimizer's state (FSDP2).
train["fsdp"] = {"enabled": False}
train["checkpointer"]["period"] = None
del train["test_time_augmentation"], train["val_loss_period"]
train.pop("sliding_window", None)
train["tensorboard"].pop("sample_images")
