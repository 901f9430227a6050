"""Trains a small detector in a process that is killed again and again, and resumed.

    resume_driver.py FOLDER KILLS

Writes FOLDER/{whole,killed}/losses.txt, a line for every step that either run has made, and prints
how often it killed. A program of its own, so that the runs can be forked from a process that has
torch loaded but has not started threads.
"""

import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

import torch
from fvcore.common.param_scheduler import CosineParamScheduler
from omegaconf import OmegaConf
from torch import nn

from iwin_d2.d2.config import LazyCall as L
from iwin_d2.d2.data import get_detection_dataset_dicts
from iwin_d2.d2.data import transforms as T
from iwin_d2.data.coco import register_coco
from iwin_d2.data.loader import build_train_loader
from iwin_d2.data.mapper import DetectionMapper
from iwin_d2.data.shapes import generate_shapes_dataset
from iwin_d2.engine.detection import do_train
from iwin_d2.engine.param_groups import get_param_groups
from iwin_d2.engine.reproducible import seed_everything
from iwin_d2.engine.trainer import DetectionTrainer

ITERATIONS_PER_KILL = 8


class Guesser(nn.Module):
    """Guesses the mean box of an image. Has all that a resumed run must take up: see the layers."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.ModuleDict({"bottom_up": nn.ModuleDict({"norm": nn.LayerNorm(4)})})
        self.stem = nn.Conv2d(3, 4, 5, stride=4)
        self.bn = nn.BatchNorm2d(4)
        self.dropout = nn.Dropout(0.3)
        self.head = nn.Linear(4, 4)

    def forward(self, batch):
        features = []
        for item in batch:
            image = item["image"][None].float() / 255
            map_ = self.bn(self.stem(image)).relu()
            features.append(map_.mean((2, 3)))
        x = self.dropout(self.backbone["bottom_up"]["norm"](torch.cat(features)))
        boxes = torch.stack([item["instances"].gt_boxes.tensor.mean(0) for item in batch])
        sizes = torch.tensor([item["image"].shape[-1] for item in batch])[:, None]
        error = self.head(x).float() - boxes / sizes
        return {"loss_square": error.square().mean(), "loss_abs": error.abs().mean()}


def make_config(data: Path, output: Path, max_iter: int):
    names = L(register_coco)(
        name="resume_train",
        json_file=str(data / "annotations/instances_train.json"),
        image_root=str(data / "train"),
    )
    augmentations = [
        L(T.RandomFlip)(horizontal=True),
        L(T.ResizeShortestEdge)(short_edge_length=[32, 40, 48], max_size=64, sample_style="choice"),
    ]
    mapper = L(DetectionMapper)(is_train=True, augmentations=augmentations, image_format="RGB")
    return OmegaConf.create(
        {
            "model": L(Guesser)(),
            "dataloader": {
                "train": L(build_train_loader)(
                    dataset=L(get_detection_dataset_dicts)(names=names),
                    mapper=mapper,
                    total_batch_size=3,
                    num_workers=2,
                )
            },
            "optimizer": L(torch.optim.AdamW)(params=L(get_param_groups)(), lr=0.01),
            "lr_multiplier": L(CosineParamScheduler)(start_value=1.0, end_value=0.0),
            "train": {
                "output_dir": str(output),
                "init_checkpoint": "",
                "max_iter": max_iter,
                "amp": {"enabled": True, "dtype": "float16"},  # with a loss scale
                "accumulation_steps": 2,
                "deterministic": True,
                "clip_grad": 1.0,
                "ema": {"enabled": True, "decay": 0.9},
                "checkpointer": {"period": 2, "max_to_keep": 2},
                "eval_period": 0,
                "log_period": 1,
                "device": "cpu",
            },
        },
        flags={"allow_objects": True},
    )


def record_losses(path: Path):
    """Make trainers append the exact losses of every step to a file."""
    reduce = DetectionTrainer._reduce

    def reduce_and_write(self, losses, data_time):
        local, means = reduce(self, losses, data_time)
        values = " ".join(f"{name}={local[name].hex()}" for name in sorted(local))
        scale = self.grad_scaler.get_scale()
        lr = self.optimizer.param_groups[0]["lr"].hex()
        with path.open("a") as file:
            file.write(f"{self.iter} {values} scale={scale} lr={lr}\n")
        return local, means

    DetectionTrainer._reduce = reduce_and_write


def start(config) -> int:
    """Fork a process that trains, resuming if it can; return its id."""
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        output = Path(config.train.output_dir)
        # Without a checkpoint a run begins as its seed says; after that its state says all.
        seed_everything(5 if not (output / "last_checkpoint").exists() else time.time_ns())
        record_losses(output / "losses.txt")
        do_train(config, resume=True)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def lines(path: Path) -> int:
    return path.read_text().count("\n") if path.exists() else 0


def wait_to_kill(output: Path, while_saving: bool) -> None:
    """Wait for some steps, then for a moment: of the saving of a checkpoint, or any."""
    losses = output / "losses.txt"
    goal = lines(losses) + random.randint(1, ITERATIONS_PER_KILL)
    end = time.monotonic() + 60
    while lines(losses) < goal and time.monotonic() < end:
        time.sleep(0.002)
    while while_saving and time.monotonic() < end and not list(output.glob(".model_*.tmp")):
        time.sleep(0.0002)
    if not while_saving:
        time.sleep(random.random() * 0.05)


def main() -> None:
    folder, kills = Path(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(1)
    random.seed(kills)
    generate_shapes_dataset(folder / "data", num_train=7, num_val=1, image_size=(48, 64))
    max_iter = (kills + 1) * ITERATIONS_PER_KILL
    for name in ("whole", "killed"):
        (folder / name).mkdir()
    config = make_config(folder / "data", folder / "whole", max_iter)
    assert os.waitpid(start(config), 0)[1] == 0, "the unbroken run failed"

    config = make_config(folder / "data", folder / "killed", max_iter)
    killed = saving = 0
    for number in range(kills):
        process = start(config)
        wait_to_kill(folder / "killed", while_saving=number % 2 == 1)
        saving += bool(list((folder / "killed").glob(".model_*.tmp")))
        os.kill(process, signal.SIGKILL)
        killed += os.WIFSIGNALED(os.waitpid(process, 0)[1])
    assert os.waitpid(start(config), 0)[1] == 0, "the last run failed"
    print(f"killed={killed} while_saving={saving}")


if __name__ == "__main__":
    main()
