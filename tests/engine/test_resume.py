"""A run that is killed and resumed is the run that never was."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

DRIVER = Path(__file__).parent / "resume_driver.py"


def steps(path):
    """{iteration: the set of everything that was said of it}; the last line may be cut off."""
    said = {}
    for line in path.read_text().splitlines(keepends=True):
        if line.endswith("\n"):
            iteration, values = line.split(" ", 1)
            said.setdefault(int(iteration), set()).add(values)
    return said


def equal(a, b):
    """Whether two nested structures of tensors and values are the same to the bit."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


@pytest.mark.parametrize(
    ("kills", "while_saving"), [(3, 1), pytest.param(50, 15, marks=pytest.mark.slow)]
)
def test_killed_at_any_moment_and_resumed_is_the_unbroken_run(tmp_path, kills, while_saving):
    done = subprocess.run(
        [sys.executable, str(DRIVER), str(tmp_path), str(kills)],
        capture_output=True,
        text=True,
        timeout=60 + 20 * kills,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    killed, saving = (int(item.split("=")[1]) for item in done.stdout.split()[-2:])
    assert killed == kills and saving >= while_saving

    whole, resumed = (steps(tmp_path / name / "losses.txt") for name in ("whole", "killed"))
    # Each step had one result, however often it was taken, and it is the unbroken run's.
    assert resumed == whole
    # So have weights, averages, optimizer, loss scale, schedule and place in the data.
    for name in ("model_final.pth", "model_final_ema.pth"):
        ends = [torch.load(tmp_path / run / name) for run in ("whole", "killed")]
        assert equal(*ends)
    state = ends_of_training(tmp_path / "killed")
    assert {"optimizer", "grad_scaler", "seed", "batches_done", "data_loader"} <= state.keys()
    assert {"ModelEMA", "LRScheduler"} <= state["hooks"].keys()
    # Nothing half written is left, no more checkpoints than asked for, no step told twice.
    found = sorted(path.name for path in (tmp_path / "killed").glob("*model*"))
    assert len(found) == 4 and not list((tmp_path / "killed").glob(".*"))
    told = [
        line.split('"iteration": ')[1].split(",")[0]
        for line in (tmp_path / "killed" / "metrics.json").read_text().splitlines()
    ]
    assert len(told) == len(set(told))


def ends_of_training(folder):
    return torch.load(folder / "model_final.pth")["trainer"]
