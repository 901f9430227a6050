"""The training tool from end to end, on a toy detector; bad input ends in one sentence."""

import importlib.util
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from iwin_d2.d2.framework import USE_DETECTRON2
from iwin_d2.engine.cli import make_output_dir, run_tool
from iwin_d2.errors import CheckpointError, ConfigError, DataError, TrainingError

HERE = Path(__file__).parent
TOOL = HERE.parent.parent / "tools" / "lazyconfig_train_net.py"
CONFIG = str(HERE / "toy_config.py")


def load_tool():
    spec = importlib.util.spec_from_file_location("lazyconfig_train_net", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(output, *arguments, config=CONFIG):
    return load_tool().main(
        ["--config-file", config, *_flags(arguments), f"train.output_dir={output}"]
        + [a for a in arguments if not a.startswith("--")]
    )


def _flags(arguments):
    return [a for a in arguments if a.startswith("--")]


def metrics(output):
    return [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]


def final_weights(output):
    return torch.load(output / "model_final.pth", weights_only=True)["model"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    output = tmp_path_factory.mktemp("trained")
    return output, run(output)


def test_trains_writes_and_evaluates(trained):
    output, results = trained
    assert results["toy"]["error"] < 2
    names = {path.name for path in output.iterdir()}
    expected = {"config.yaml", "log.txt", "metrics.json", "model_final.pth", "last_checkpoint"}
    assert expected <= names
    assert {"model_0000007.pth", "model_0000015.pth"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    assert (output / "inference" / "toy.txt").exists()
    rows = metrics(output)
    assert [row["iteration"] for row in rows] == [4, 9, 14, 19, 20]
    assert {"loss_toy", "total_loss", "data_time", "time", "lr"} <= set(rows[2])
    assert rows[1]["toy/error"] > rows[-1]["toy/error"] == results["toy"]["error"]
    assert rows[1]["lr"] == 0.05 and rows[3]["lr"] == pytest.approx(0.005)


def test_log_says_first_which_framework_runs(trained):
    lines = (trained[0] / "log.txt").read_text().splitlines()
    assert "framework: " in lines[0]
    assert "operators: " in lines[1]


def test_weight_decay_groups_are_used(trained):
    state = torch.load(trained[0] / "model_final.pth", weights_only=True)
    groups = state["trainer"]["optimizer"]["param_groups"]
    assert [group["weight_decay"] for group in groups] == [0.05, 0.0]


def test_same_seed_same_weights(trained, tmp_path):
    run(tmp_path)
    for name, value in final_weights(tmp_path).items():
        torch.testing.assert_close(value, final_weights(trained[0])[name], rtol=0, atol=0)


def test_saved_config_runs_again(trained, tmp_path):
    run(tmp_path, config=str(trained[0] / "config.yaml"))
    for name, value in final_weights(tmp_path).items():
        torch.testing.assert_close(value, final_weights(trained[0])[name], rtol=0, atol=0)


def test_resume_goes_on_from_the_last_checkpoint(tmp_path):
    run(tmp_path, "train.max_iter=8")
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"
    run(tmp_path, "--resume")
    assert [row["iteration"] for row in metrics(tmp_path)] == [4, 7, 8, 9, 14, 19, 20]
    log = (tmp_path / "log.txt").read_text()
    assert "Training from iteration 8 to 20" in log
    # Done already: evaluated again, not trained.
    results = run(tmp_path, "--resume")
    assert "Trained up to iteration 20 already" in (tmp_path / "log.txt").read_text()
    assert "error" in results["toy"]


def test_resume_without_a_checkpoint_starts_from_scratch(tmp_path):
    run(tmp_path, "--resume", "train.max_iter=2")
    log = (tmp_path / "log.txt").read_text()
    assert f"no checkpoint in {tmp_path} yet, so starting from scratch" in log


def test_resume_from_a_file_that_is_gone(tmp_path):
    (tmp_path / "last_checkpoint").write_text("model_0000007.pth")
    with pytest.raises(CheckpointError, match=r"model_0000007\.pth"):
        run(tmp_path, "--resume")


def test_eval_only(trained, tmp_path):
    output, results = trained
    weights = f"train.init_checkpoint={output / 'model_final.pth'}"
    assert run(tmp_path, "--eval-only", weights) == results
    assert run(output, "--eval-only", "--resume") == results
    assert not (tmp_path / "model_final.pth").exists()
    with pytest.raises(CheckpointError, match="--eval-only needs weights"):
        run(tmp_path, "--eval-only")


def test_training_starts_from_init_checkpoint(trained, tmp_path):
    weights = f"train.init_checkpoint={trained[0] / 'model_final.pth'}"
    run(tmp_path, weights, "optimizer.lr=0.0", "optimizer.weight_decay=0.0", "train.max_iter=1")
    for name, value in final_weights(tmp_path).items():
        torch.testing.assert_close(value, final_weights(trained[0])[name], rtol=0, atol=0)


def test_mixed_precision_and_clipping(tmp_path):
    run(tmp_path, "train.amp.enabled=true", "+train.clip_grad=0.5", "train.max_iter=5")
    assert "grad_norm" in metrics(tmp_path)[0]
    with pytest.raises(ConfigError, match=r"train\.amp\.dtype"):
        run(tmp_path, "+train.amp.dtype=float64")


def test_metrics_hold_no_nan(tmp_path):
    results = run(tmp_path, "train.max_iter=2", "dataloader.evaluator.undefined=true")
    assert math.isnan(results["toy"]["undefined"])
    assert "NaN" not in (tmp_path / "metrics.json").read_text()
    assert metrics(tmp_path)[-1]["toy/error"] == results["toy"]["error"]
    assert "undefined" in (tmp_path / "log.txt").read_text()


@pytest.mark.parametrize("key", ["optimizer.lr", "train.max_iter"])
def test_a_value_left_open_is_named(tmp_path, key):
    with pytest.raises(ConfigError, match=rf"^{re.escape(key)} is not set: add {re.escape(key)}="):
        run(tmp_path, f"{key}=???")


def test_unknown_override_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="max_iter"):
        run(tmp_path, "train.max_itr=5")
    assert not (tmp_path / "model_final.pth").exists()


def test_flags_among_the_overrides_are_refused(tmp_path):
    arguments = ["--config-file", CONFIG, f"train.output_dir={tmp_path}", "--resume"]
    with pytest.raises(ConfigError, match="--resume stands among the overrides"):
        load_tool().main(arguments)


def test_output_folder_is_checked_before_anything_is_loaded(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"output folder .*file.* cannot be used"):
        run(tmp_path / "file", "dataloader.train.fail_at=0")
    with pytest.raises(ConfigError, match="--output"):
        make_output_dir(str(tmp_path / "file" / "below"), setting="--output")


def test_bad_data_and_bad_losses_stop_the_tool(tmp_path):
    with pytest.raises(DataError, match=r"broken\.jpg"):
        run(tmp_path, "dataloader.train.fail_at=2")
    with pytest.raises(TrainingError, match=r"iteration 2: .*loss_toy=nan.*images/2_0\.jpg"):
        run(tmp_path, "dataloader.train.nan_at=2")
    assert not (tmp_path / "model_final.pth").exists()


def test_cuda_is_replaced_where_there_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    run(tmp_path, "train.device=cuda", "train.max_iter=2")
    assert "no CUDA device here" in (tmp_path / "log.txt").read_text()
    with pytest.raises(ConfigError, match=r"train\.device"):
        run(tmp_path, "train.device=quantum")


@pytest.mark.parametrize("processes", [1, 2])
def test_as_a_program(tmp_path, processes):
    """A worker's error arrives as its sentence alone, on stderr, with status 1."""
    environment = {**os.environ, "PYTHONPATH": str(HERE), "IWIN_D2_TRACEBACK": ""}
    config = tmp_path / "worker_config.py"
    loader = f"L(toy_detector.worker_loader)(fail_at=2, rank={processes - 1})"
    config.write_text(Path(CONFIG).read_text() + f'\ndataloader["train"] = {loader}\n')
    flags = ["--config-file", config, "--num-gpus", str(processes)]
    done = subprocess.run(
        [sys.executable, str(TOOL), *flags, f"train.output_dir={tmp_path}"],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
    )
    assert done.returncode == 1
    # Lines before it are warnings of libraries that a framework loads.
    lines = done.stderr.strip().splitlines()
    assert lines[-1] == "Image images/broken.jpg cannot be read: remove it."
    assert done.stderr.count(lines[-1]) == 1
    if not USE_DETECTRON2:
        assert len(lines) == 1
    assert "framework: " in done.stdout.splitlines()[0]
    assert "Training from iteration 0" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_statuses_and_tracebacks(capsys, monkeypatch):
    def fail():
        raise DataError("One sentence.")

    monkeypatch.delenv("IWIN_D2_TRACEBACK", raising=False)
    assert run_tool(fail) == 1
    assert capsys.readouterr().err == "One sentence.\n"
    monkeypatch.setenv("IWIN_D2_TRACEBACK", "1")
    assert run_tool(fail) == 1
    assert "Traceback" in capsys.readouterr().err
    assert run_tool(lambda: 3) == 3
    assert run_tool(lambda: {"bbox": {}}) == 0
    with pytest.raises(ZeroDivisionError):
        run_tool(lambda: 1 / 0)

    def interrupt():
        raise KeyboardInterrupt

    assert run_tool(interrupt) == 130


def test_weights_that_are_not_finite_are_said_to_be_so(capsys):
    def evaluate():
        raise FloatingPointError("boxes refined by cascade stage 0 are not finite")

    assert run_tool(evaluate) == 1
    assert "stage 0 are not finite): its weights are damaged" in capsys.readouterr().err
