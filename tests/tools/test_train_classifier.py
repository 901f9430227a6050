"""The training tool of classifiers from end to end, on small clips; bad input, kills, processes."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from classifier_driver import CONFIG, ROOT, load_tool, tiny
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_several_processes import LIMIT, LOOPBACK, TORCHRUN, sentence, wait_for

from iwin_d2.data.classification_shapes import generate_classification_dataset
from iwin_d2.data.video.mapper import VideoMapper
from iwin_d2.data.video.shapes import generate_moving_shapes
from iwin_d2.engine import classification
from iwin_d2.engine.cli import run_tool
from iwin_d2.errors import ConfigError, DataError, TrainingError

DRIVER = Path(__file__).with_name("classifier_driver.py")
TOOL = ROOT / "tools/train_classifier.py"
IMAGES = ROOT / "projects/image_classification/configs/custom_folder_small.py"
# Overrides of it, for a training of a moment.
SMALL = [
    "model.embed_dim=8",
    "model.depths=[1,1,1,1]",
    "model.num_heads=[1,1,2,2]",
    "dataloader.train.total_batch_size=4",
    "dataloader.test.num_workers=0",
    "train.max_iter=4",
    "train.device=cpu",
    "train.tensorboard.enabled=False",
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("motions") / "data"
    return generate_moving_shapes(root, 8, 5, size=48, num_frames=(10, 14))


@pytest.fixture(autouse=True)
def one_thread():
    """So that sums are the same whoever else computes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def command(data, output, *arguments):
    flags = [a for a in arguments if a.startswith("--")]
    overrides = [a for a in arguments if not a.startswith("--")]
    shared = [*tiny(data), "dataloader.train.num_workers=0", "train.max_iter=4", "train.seed=3"]
    output = f"train.output_dir={output}"
    return ["--config-file", str(CONFIG), *flags, *shared, output, *overrides]


def run(data, output, *arguments):
    return load_tool().main(command(data, output, *arguments))


def rows(output):
    return [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]


def losses(output):
    return {row["iteration"]: row["total_loss"] for row in rows(output) if "total_loss" in row}


def equal(a, b):
    """Whether two nested structures of tensors and values are the same to the bit."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


# --- killed and resumed


def steps(path):
    """{iteration: the set of everything that was said of it}; the last line may be cut off."""
    said = {}
    for line in path.read_text().splitlines(keepends=True):
        if line.endswith("\n"):
            iteration, values = line.split(" ", 1)
            said.setdefault(int(iteration), set()).add(values)
    return said


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_any_moment_and_resumed_is_the_unbroken_run(tmp_path, kills):
    """With two loading workers, accumulated float16 batches, averages, mixup; in mid-epoch."""
    done = subprocess.run(
        [sys.executable, str(DRIVER), str(tmp_path), str(kills)],
        capture_output=True,
        text=True,
        timeout=60 + 20 * kills,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    killed, saving = (int(item.split("=")[1]) for item in done.stdout.split()[-2:])
    assert killed == kills and (saving or kills < 20)

    whole, resumed = (steps(tmp_path / name / "losses.txt") for name in ("whole", "killed"))
    assert resumed == whole and len(whole) == 5 * (kills + 1)
    for name in ("model_final.pth", "model_final_ema.pth"):
        assert equal(*(torch.load(tmp_path / run / name) for run in ("whole", "killed")))
    state = torch.load(tmp_path / "killed/model_final.pth")["trainer"]
    assert state["scaler"] and state["ema"]["steps"] == len(whole)
    # Nothing half written is left, no more checkpoints than asked for, no iteration told twice.
    found = sorted(path.name for path in (tmp_path / "killed").glob("model_0*"))
    assert len(found) == 2 and not list((tmp_path / "killed").glob(".*"))
    told = [row["iteration"] for row in rows(tmp_path / "killed")]
    assert len(told) == len(set(told)) and set(whole) <= set(told)


def test_a_run_stops_on_request_and_goes_on(tmp_path, data):
    arguments = command(data, tmp_path, "train.max_iter=1000000", "dataloader.train.num_workers=2")
    environment = {**os.environ, "IWIN_D2_TRACEBACK": ""}
    program = subprocess.Popen(
        [sys.executable, str(TOOL), *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        log = tmp_path / "log.txt"
        wait_for(lambda: log.exists() and "clips/s" in log.read_text())
        program.send_signal(signal.SIGUSR1)
        _, stderr = program.communicate(timeout=LIMIT)
    finally:
        program.kill()
    assert program.returncode == 1 and "Traceback" not in stderr
    assert "Stopped on request after iteration" in sentence(stderr)
    name = (tmp_path / "last_checkpoint").read_text()
    assert name in sentence(stderr)
    done = int(name[len("model_") : -len(".pth")]) + 1
    run(data, tmp_path, "--resume", f"train.max_iter={done + 2}")
    assert sorted(losses(tmp_path)) == list(range(done + 2))


# --- one training with everything in it


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    output = tmp_path_factory.mktemp("trained")
    results = run(
        data, output, "train.eval_period=2", "train.tensorboard.enabled=True", "train.max_iter=5"
    )
    return output, results


def test_what_a_training_leaves(trained):
    output, results = trained
    assert set(results["classification"]) == {"top1", "mean_class_accuracy"}
    names = {path.name for path in output.iterdir()}
    assert {"config.yaml", "log.txt", "metrics.json", "model_final.pth", "model_best.pth"} <= names
    told = {row["iteration"]: row for row in rows(output)}
    assert sorted(losses(output)) == [0, 1, 2, 3, 4]
    assert {"clips_per_second", "time", "data_time", "lr", "grad_norm"} <= told[0].keys()
    top1 = "classification/top1"
    evaluated = {i: row[top1] for i, row in told.items() if top1 in row}
    assert sorted(evaluated) == [1, 3, 5]
    assert evaluated[5] == results["classification"]["top1"]
    best = torch.load(output / "model_best.pth")
    assert best["metric"] == {"classification/top1": max(evaluated.values())}
    assert re.search(r"eta: .* epoch: .* iter: 4 .* clips/s: \d", (output / "log.txt").read_text())


def test_tensorboard_shows_it(trained):
    shown = EventAccumulator(str(trained[0])).Reload()
    assert {"total_loss", "lr", "clips_per_second", "classification/top1"} <= set(
        shown.Tags()["scalars"]
    )
    assert [event.step for event in shown.Scalars("classification/top1")] == [1, 3, 5]


def test_evaluation_alone(trained, data, tmp_path):
    output, results = trained
    weights = f"train.init_checkpoint={output / 'model_final.pth'}"
    assert run(data, tmp_path, "--eval-only", weights) == results
    assert not (tmp_path / "metrics.json").exists()
    lines = (tmp_path / "inference/predictions.csv").read_text().splitlines()
    assert len(lines) == 6
    shutil.copy(output / "model_final.pth", tmp_path)
    (tmp_path / "last_checkpoint").write_text("model_final.pth")
    assert run(data, tmp_path, "--eval-only", "--resume") == results


@pytest.mark.slow
@pytest.mark.parametrize("how", ["spawn", "torchrun"])
def test_two_processes_train_as_one(data, tmp_path, how):
    options = ["model.dropout=0.0", "dataloader.train.total_batch_size=4", "train.max_iter=3"]
    one, two = tmp_path / "one", tmp_path / "two"
    results = run(data, one, *options)
    flags, python = (["--num-gpus=2"], []) if how == "spawn" else ([], TORCHRUN)
    done = subprocess.run(
        [sys.executable, *python, str(TOOL), *command(data, two, *flags, *options)],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        env={**os.environ, "GLOO_SOCKET_IFNAME": LOOPBACK},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert losses(two) == pytest.approx(losses(one), rel=1e-4)
    assert rows(two)[-1]["classification/top1"] == results["classification"]["top1"]
    assert (two / "log.txt.rank1").exists()


# --- bad input


def with_bad(data, tmp_path, *numbers):
    """The data set with some of its training videos cut off; the list's path as an override."""
    root = tmp_path / "bad"
    shutil.copytree(data.root, root)
    train = [line.rsplit(" ", 1)[0] for line in (root / "train.txt").read_text().splitlines()]
    for number in numbers:
        path = root / train[number]
        path.write_bytes(path.read_bytes()[:100])
    return root, [train[number] for number in numbers]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_video_ends_the_training(data, tmp_path, workers):
    root, (name,) = with_bad(data, tmp_path, 3)
    with pytest.raises(DataError) as caught:
        run(
            data,
            tmp_path / "out",
            f"dataset.train_list={root / 'train.txt'}",
            f"dataloader.train.num_workers={workers}",
        )
    assert name in caught.value.sentence and "\n" not in caught.value.sentence


def test_bad_videos_are_left_out_up_to_a_number(data, tmp_path):
    root, names = with_bad(data, tmp_path, 1, 4)
    options = [f"dataset.train_list={root / 'train.txt'}", "dataloader.train.num_workers=2"]
    run(data, tmp_path / "out", *options, "dataloader.train.max_bad_images=2")
    log = (tmp_path / "out/log.txt").read_text()  # of the workers, too
    said = [line for line in log.splitlines() if "Left out bad video" in line]
    assert len(said) == 2 and "1 of at most 2 (dataloader.train.max_bad_images)" in said[0]
    assert all(any(name in line for line in said) for name in names)
    with pytest.raises(DataError, match=r"More than dataloader\.train\.max_bad_images=1 videos"):
        run(data, tmp_path / "fewer", *options, "dataloader.train.max_bad_images=1")


def test_bad_images_are_left_out(tmp_path):
    images = generate_classification_dataset(tmp_path / "images", num_train=16, num_val=8)
    bad = sorted(Path(images.train).rglob("*.jpg"))[2]
    bad.write_bytes(bad.read_bytes()[:200])
    options = [f"dataset.train={images.train}", f"dataset.test={images.val}", *SMALL]
    arguments = ["--config-file", str(IMAGES), *options, f"train.output_dir={tmp_path / 'out'}"]
    with pytest.raises(DataError, match=re.escape(str(bad))):
        load_tool().main(arguments)
    load_tool().main([*arguments, "dataloader.train.max_bad_images=1"])
    log = (tmp_path / "out/log.txt").read_text()
    said = [line for line in log.splitlines() if "Left out bad image 1 of at most 1" in line]
    assert len(said) == 1 and str(bad) in said[0]


def test_a_training_set_of_bad_videos_alone(data, tmp_path):
    root, _ = with_bad(data, tmp_path, *range(8))
    options = [f"dataset.train_list={root / 'train.txt'}", "dataloader.train.max_bad_images=100"]
    with pytest.raises(DataError, match=r"can use none of the training videos"):
        run(data, tmp_path / "out", *options)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_video_of_the_test_set(trained, data, tmp_path, workers):
    root, (name,) = with_bad(data, tmp_path, 2)
    with pytest.raises(DataError) as caught:
        run(
            data,
            tmp_path / "out",
            "--eval-only",
            f"train.init_checkpoint={trained[0] / 'model_final.pth'}",
            f"dataset.test_list={root / 'train.txt'}",
            f"dataloader.test.num_workers={workers}",
        )
    assert name in caught.value.sentence and "\n" not in caught.value.sentence


def test_a_loading_worker_that_is_killed(data, tmp_path, monkeypatch, capsys):
    """By the signal that a machine without memory uses."""
    load, trainer = VideoMapper.__call__, os.getpid()

    def killed(mapper, record):
        if os.getpid() != trainer and record["image_id"] == 6:
            os.kill(os.getpid(), signal.SIGKILL)
        return load(mapper, record)

    monkeypatch.setattr(VideoMapper, "__call__", killed)
    tool = load_tool()
    arguments = command(data, tmp_path, "dataloader.train.num_workers=2", "train.max_iter=100")
    assert run_tool(lambda: tool.main(arguments)) == 1
    stderr = capsys.readouterr().err
    assert "A process that loads data has ended (DataLoader worker (pid" in sentence(stderr)
    # What PyTorch says of it depends on who notices first.
    told = re.search("killed by signal: Killed|exited unexpectedly", sentence(stderr))
    assert told and "Traceback" not in stderr


def test_a_loss_that_is_no_number(data, tmp_path, monkeypatch):
    loss = classification.ClassifierSettings.loss

    def bad(settings, logits, labels):
        return loss(settings, logits, labels) * float("nan")

    monkeypatch.setattr(classification.ClassifierSettings, "loss", bad)
    with pytest.raises(TrainingError) as caught:
        run(data, tmp_path)
    text = caught.value.sentence
    assert "diverged at iteration 0: the loss is nan" in text and ".mp4" in text
    assert "model_initial.pth" in text and (tmp_path / "model_initial.pth").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("+train.label_smothing=0.1", r"train\.label_smothing.*mean train\.label_smoothing\?"),
        ("+train.mixing.mixupp=1", r"train\.mixing\.mixup\?|train\.mixing\.mixupp is no setting"),
        ("+train.fsdp.enable=True", r"Did you mean train\.fsdp\.enabled\?"),
        ("+train.epochs.maxx=3", r"Did you mean train\.epochs\.max\?"),
        ("train.accumulation_steps=0", r"train\.accumulation_steps=0 makes no sense"),
        ("train.clip_grad=-1", r"train\.clip_grad=-1 makes no sense"),
        ("train.amp.dtype=float31", r"train\.amp\.dtype=float31 makes no sense"),
        ("train.log_period=0", r"train\.log_period=0 makes no sense"),
        ("model.num_classes=3", r"model has 3 classes, the test set 4"),
        ("+train.sliding_window.enabled=True", r"is not for classifiers"),
        ("dataloader.train.total_batch_size=0", r"total_batch_size=0 makes no sense"),
    ],
)
def test_settings_that_make_no_sense(data, tmp_path, override, message):
    with pytest.raises((ConfigError, DataError), match=message):
        run(data, tmp_path, override)
