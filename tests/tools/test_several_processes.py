"""The training tool in several processes: as one process does, and ending together."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_lazyconfig_train_net import CONFIG, HERE, TOOL, metrics, run

from iwin_d2.data.shapes import generate_shapes_dataset

CASCADE = TOOL.parents[1] / "projects/cascade_mask_rcnn/configs/custom_coco_small_boxes.py"
LOOPBACK = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
LIMIT = 120  # seconds, for whatever hangs
TORCHRUN = ["-m", "torch.distributed.run", "--nproc_per_node=2", "--master_addr=127.0.0.1"]


@contextlib.contextmanager
def started(output, *arguments, python=(), config=CONFIG):
    """The tool as a program; what it still has running in the end is killed."""
    environment = {**os.environ, "PYTHONPATH": str(HERE), "IWIN_D2_TRACEBACK": ""}
    environment["GLOO_SOCKET_IFNAME"] = LOOPBACK
    flags = [a for a in arguments if a.startswith("--")]
    overrides = [a for a in arguments if not a.startswith("--")]
    command = [sys.executable, *python, str(TOOL)]
    program = subprocess.Popen(
        [*command, "--config-file", config, *flags, f"train.output_dir={output}", *overrides],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    try:
        yield program
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(program.pid, signal.SIGKILL)
        program.communicate()


def wait_for(condition):
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end, "it did not come in time"
        time.sleep(0.1)


def training(output):
    """Whether the log tells of iterations."""
    log = Path(output, "log.txt")
    return log.exists() and "total_loss" in log.read_text()


def sentence(stderr):
    """The last line that the tool itself has written."""
    return stderr.strip().splitlines()[-1]


def assert_same_training(one, several, *, rtol):
    """Losses and results, iteration by iteration; everything but times and local counts."""
    rows = list(zip(metrics(one), metrics(several), strict=True))
    assert len(rows) >= 3
    for row, other in rows:
        names = [
            n for n in row if "loss" in n or "/A" in n or n in ("lr", "grad_norm", "toy/error")
        ]
        assert names
        for name in names:
            assert other[name] == pytest.approx(row[name], rel=rtol, abs=1e-6, nan_ok=True), name


@pytest.mark.parametrize(
    "python",
    [pytest.param((), id="spawn", marks=pytest.mark.slow), pytest.param(TORCHRUN, id="torchrun")],
)
def test_the_cascade_trains_in_two_processes_as_in_one(tmp_path, python):
    """Where the losses are means over equally many proposals of each image, and none are drawn."""
    data = generate_shapes_dataset(tmp_path / "data", 8, 3, image_size=(64, 96))
    overrides = [
        f"dataset.train_json={data.train_json}",
        f"dataset.train_images={data.train_images}",
        f"dataset.test_json={data.val_json}",
        f"dataset.test_images={data.val_images}",
        "dataloader.train.mapper.augmentations.1.short_edge_length=[64]",
        "dataloader.test.mapper.augmentations.0.short_edge_length=64",
        "dataloader.train.num_workers=0",
        "dataloader.test.num_workers=0",
        # All anchors and proposals are learnt from, not a random part of them.
        "model.proposal_generator.batch_size_per_image=100000",
        "model.proposal_generator.positive_fraction=1.0",
        "model.proposal_generator.post_nms_topk=[20,20]",
        "model.proposal_generator.nms_thresh=1.0",
        "model.roi_heads.batch_size_per_image=1000",
        "model.roi_heads.positive_fraction=1.0",
        "+model.roi_heads.proposal_append_gt=false",
        "model.roi_heads.box_predictors.2.test_score_thresh=0.0",
        *(f"model.roi_heads.box_heads.{i}.conv_norm=''" for i in range(3)),
        "train.max_iter=3",
        "train.eval_period=3",
        "train.log_period=1",
        "train.seed=3",
    ]
    one, several = tmp_path / "one", tmp_path / "several"
    results = run(one, *overrides, config=str(CASCADE))
    assert results["bbox"]["AP"] >= 0
    flags = [] if python else ["--num-gpus=2"]
    with started(several, *flags, *overrides, python=python, config=CASCADE) as program:
        _, stderr = program.communicate(timeout=LIMIT)
    assert program.returncode == 0, stderr
    assert_same_training(one, several, rtol=1e-4)
    assert (several / "log.txt.rank1").exists()


def test_a_killed_process_ends_the_run(tmp_path):
    """From outside, by the signal that a machine without memory uses."""
    arguments = ["--num-gpus=2", "train.max_iter=1000000", "train.eval_period=0"]
    with started(tmp_path, *arguments, f"dataloader.train.pids={tmp_path}") as program:
        wait_for(lambda: training(tmp_path))
        begin = time.monotonic()
        os.kill(int((tmp_path / "1").read_text()), signal.SIGKILL)
        stdout, stderr = program.communicate(timeout=LIMIT)
    assert time.monotonic() - begin < 30
    assert program.returncode == 1
    assert "Process 1 was killed by SIGKILL: the machine may have run" in sentence(stderr)
    assert "Traceback" not in stdout + stderr


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_run_stops_on_request_and_goes_on(tmp_path, number):
    arguments = ["--num-gpus=2", "train.max_iter=1000000", "train.eval_period=0"]
    with started(tmp_path, *arguments) as program:
        wait_for(lambda: training(tmp_path))
        program.send_signal(number)
        _, stderr = program.communicate(timeout=LIMIT)
    assert program.returncode == 1
    assert "Stopped on request after iteration" in sentence(stderr)
    name = (tmp_path / "last_checkpoint").read_text()
    assert name in sentence(stderr)
    done = int(name[len("model_") : -len(".pth")]) + 1
    run(tmp_path, "--num-gpus=2", "--resume", f"train.max_iter={done + 2}")
    assert metrics(tmp_path)[-1]["iteration"] == done + 2


@pytest.mark.slow
def test_interrupted_twice(tmp_path):
    arguments = ["--num-gpus=2", "--eval-only", f"dataloader.test.pids={tmp_path}"]
    weights = tmp_path / "weights"
    run(weights, "train.max_iter=1")
    arguments += [
        f"train.init_checkpoint={weights}/model_final.pth",
        "dataloader.test.endless=true",
    ]
    with started(tmp_path, *arguments) as program:
        wait_for(lambda: (tmp_path / "1").exists())
        program.send_signal(signal.SIGINT)
        _, stderr = program.communicate(timeout=LIMIT)
    assert program.returncode == 130
    assert sentence(stderr) == "Interrupted."


@pytest.mark.slow
@pytest.mark.parametrize("python", [(), TORCHRUN], ids=["spawn", "torchrun"])
@pytest.mark.parametrize("where", ["train", "test"])
@pytest.mark.parametrize("how", ["fail", "bug", "kill"])
def test_failures_of_one_process(tmp_path, python, where, how):
    weights = tmp_path / "weights"
    run(weights, "train.max_iter=1")
    arguments = [f"train.init_checkpoint={weights}/model_final.pth"]
    arguments += ["train.max_iter=1000000", "train.eval_period=0", "dataloader.test.endless=true"]
    arguments += ["--eval-only"] if where == "test" else []
    arguments += [] if python else ["--num-gpus=2"]
    arguments += [f"dataloader.{where}.rank=1", f"dataloader.{where}.pids={tmp_path}"]
    arguments += [] if how == "kill" else [f"dataloader.{where}.{how}_at=2"]
    with started(tmp_path, *arguments, python=python) as program:
        if how == "kill":
            wait_for(lambda: (tmp_path / "1").exists())
            time.sleep(1)
            os.kill(int((tmp_path / "1").read_text()), signal.SIGKILL)
        begin = time.monotonic()
        _, stderr = program.communicate(timeout=LIMIT)
    assert time.monotonic() - begin < 60
    assert program.returncode == 1
    wanted = {
        "fail": "Image images/broken.jpg cannot be read: remove it.",
        "bug": "ZeroDivisionError: division by zero",
        "kill": "SIGKILL",
    }[how]
    assert wanted in stderr
    if how == "fail":
        assert stderr.count(wanted) == 1 and "Traceback" not in stderr.split(wanted)[0]


@pytest.mark.slow
def test_two_machines_train_as_one_process_does(tmp_path):
    with two_machines(tmp_path / "several") as programs:
        for program in programs:
            _, stderr = program.communicate(timeout=LIMIT)
            assert program.returncode == 0, stderr
    results = run(tmp_path / "one")
    assert_same_training(tmp_path / "one", tmp_path / "several", rtol=1e-5)
    found = run(tmp_path / "spawned", "--num-gpus=2")
    assert found["toy"]["error"] == pytest.approx(results["toy"]["error"], rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_machine_that_is_gone_ends_the_other(tmp_path, victim):
    with two_machines(tmp_path, "train.max_iter=1000000", "train.eval_period=0") as programs:
        wait_for(lambda: training(tmp_path))
        programs[victim].kill()  # its processes end with it
        _, stderr = programs[1 - victim].communicate(timeout=LIMIT)
    assert programs[1 - victim].returncode == 1
    assert f"Machine {victim} is gone" in sentence(stderr)


@contextlib.contextmanager
def two_machines(output, *arguments):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    flags = ["--num-machines=2", f"--dist-url=tcp://127.0.0.1:{port}"]
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(started(output, *flags, f"--machine-rank={rank}", *arguments))
            for rank in range(2)
        ]
