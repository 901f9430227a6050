"""Trains a small video classifier in a process that is killed again and again, and resumed.

    classifier_driver.py FOLDER KILLS

Writes FOLDER/{whole,killed}/losses.txt, a line for every iteration that either run has made, and
prints how often it killed. A program of its own, so that the runs can be forked from a process that
has torch loaded but has not started threads.
"""

import importlib.util
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

import torch

from iwin_d2.data.video.shapes import generate_moving_shapes
from iwin_d2.engine import classification

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "projects/video_classification/configs/custom_list_small.py"
ITERATIONS_PER_KILL = 5


def tiny(data) -> list[str]:
    """Overrides of custom_list_small.py: a model and clips that train in a moment."""
    return [
        f"dataset.train_list={data.train_list}",
        f"dataset.test_list={data.val_list}",
        f"dataset.classes={data.classes}",
        "model.backbone.embed_dim=8",
        "model.backbone.depths=[1,1,1,1]",
        "model.backbone.num_heads=[1,1,2,2]",
        "model.backbone.window_size=2",
        "model.backbone.num_frames=4",
        "dataloader.train.mapper.sampler.num_frames=4",
        "dataloader.train.mapper.resize.size=40",
        "dataloader.train.mapper.transforms.0.size=[32,32]",
        "dataloader.train.total_batch_size=3",
        "dataloader.train.num_workers=2",
        "dataloader.test.mapper.sampler.num_frames=4",
        "dataloader.test.mapper.sampler.num_clips=1",
        "dataloader.test.mapper.transforms.0.size=32",
        "dataloader.test.num_workers=0",
        "train.device=cpu",
        "train.tensorboard.enabled=False",
        "train.log_period=1",
    ]


def load_tool():
    """The training tool, as a module."""
    spec = importlib.util.spec_from_file_location(
        "train_classifier", ROOT / "tools/train_classifier.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def record_losses(path: Path) -> None:
    """Make trainings append the exact loss of every iteration to a file."""
    after = classification._Run._after_iteration

    def after_iteration(run, storage):
        loss = storage.history("total_loss").latest().hex()
        rate = storage.history("lr").latest().hex()
        with path.open("a") as file:
            file.write(f"{storage.iter} {loss} scale={run._state.scaler.get_scale()} lr={rate}\n")
        after(run, storage)

    classification._Run._after_iteration = after_iteration


def start(tool, arguments: list[str], output: Path) -> int:
    """Fork a process that trains, resuming if it can; return its id."""
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        # Without a checkpoint a run begins as its seed says; after that its state says all.
        seed = 5 if not (output / "last_checkpoint").exists() else time.time_ns() % 2**30
        record_losses(output / "losses.txt")
        tool.main([*arguments, f"train.output_dir={output}", f"train.seed={seed}"])
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


def lines(path: Path) -> int:
    return path.read_text().count("\n") if path.exists() else 0


def wait_to_kill(output: Path, while_saving: bool) -> None:
    """Wait for some iterations, then for a moment: of the saving of a checkpoint, or any."""
    losses = output / "losses.txt"
    goal = lines(losses) + random.randint(1, ITERATIONS_PER_KILL)
    end = time.monotonic() + 60
    while lines(losses) < goal and time.monotonic() < end:
        time.sleep(0.002)
    while while_saving and time.monotonic() < end and not list(output.glob(".model_*.tmp")):
        time.sleep(0.0002)
    if not while_saving:
        time.sleep(random.random() * 0.1)


def main() -> None:
    folder, kills = Path(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(1)
    random.seed(kills)
    data = generate_moving_shapes(folder / "data", 7, 2, size=48, num_frames=(10, 14))
    arguments = [
        *("--config-file", str(CONFIG), "--resume"),
        *tiny(data),
        f"train.max_iter={(kills + 1) * ITERATIONS_PER_KILL}",
        "train.checkpointer.period=2",
        "train.checkpointer.max_to_keep=2",
        "train.eval_period=7",
        "train.accumulation_steps=2",
        "train.deterministic=True",
        "train.amp.enabled=True",
        "train.amp.dtype=float16",  # with a loss scale
        "train.ema.enabled=True",
        "train.mixing.mixup=0.8",
    ]
    tool = load_tool()
    for name in ("whole", "killed"):
        (folder / name).mkdir()
    assert os.waitpid(start(tool, arguments, folder / "whole"), 0)[1] == 0, (
        "the unbroken run failed"
    )
    killed = saving = 0
    for number in range(kills):
        process = start(tool, arguments, folder / "killed")
        wait_to_kill(folder / "killed", while_saving=number % 2 == 1)
        saving += bool(list((folder / "killed").glob(".model_*.tmp")))
        os.kill(process, signal.SIGKILL)
        killed += os.WIFSIGNALED(os.waitpid(process, 0)[1])
    assert os.waitpid(start(tool, arguments, folder / "killed"), 0)[1] == 0, "the last run failed"
    print(f"killed={killed} while_saving={saving}")


if __name__ == "__main__":
    main()
