"""The training tool from end to end on a tiny segmenter."""

import json
import math
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from segmentation_scenes import CLASSES, write_scenes
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_lazyconfig_train_net import metrics
from test_lazyconfig_train_net import run as run_tool
from test_several_processes import LIMIT, assert_same_training, started, training, wait_for

from iwin_d2.data.semantic_segmentation.evaluator import SegmentationEvaluator
from iwin_d2.engine.class_names import read_checkpoint_metadata
from iwin_d2.engine.trainer import DetectionTrainer
from iwin_d2.errors import ConfigError, DataError, TrainingError

CONFIG = str(Path(__file__).with_name("segmentation_config.py"))


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Overrides for a small data set."""
    return write_scenes(tmp_path_factory.mktemp("scenes") / "data")


@pytest.fixture(autouse=True)
def one_thread():
    """So that sums are the same whoever else computes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def run(output, *arguments):
    return run_tool(output, *arguments, config=CONFIG)


def content(output, name="model_final.pth"):
    return torch.load(output / name, weights_only=True)


def losses(output):
    """Every loss by iteration, from metrics.json: medians over the steps of a run."""
    rows = {row["iteration"]: row for row in metrics(output) if "total_loss" in row}
    return {i: {k: v for k, v in row.items() if "loss" in k} for i, row in rows.items()}


def run_recorded(output, *arguments, interrupted_after=None):
    """Run the tool; return {iteration: the losses of that step, to the bit}."""
    found = {}
    reduce = DetectionTrainer._reduce

    def reduce_and_record(self, local, data_time):
        reduced = reduce(self, local, data_time)
        found[self.iter] = {name: value.hex() for name, value in reduced[0].items()}
        if self.iter == interrupted_after:
            os.kill(os.getpid(), signal.SIGINT)
        return reduced

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DetectionTrainer, "_reduce", reduce_and_record)
        if interrupted_after is None:
            run(output, *arguments)
        else:
            with pytest.raises(TrainingError, match=r"Stopped on request after .*--resume goes on"):
                run(output, *arguments)
    return found


def assert_same_weights(one, other, name="model_final.pth"):
    ours, theirs = content(one, name)["model"], content(other, name)["model"]
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        torch.testing.assert_close(value, theirs[key], rtol=0, atol=0, msg=key)


# --- one training with everything in it


@pytest.fixture(scope="module")
def trained(scenes, tmp_path_factory):
    output = tmp_path_factory.mktemp("trained")
    results = run(
        output,
        *scenes,
        "train.max_iter=40",
        "train.eval_period=20",
        "train.val_loss_period=20",
        "train.best_checkpoint.metric=sem_seg/mIoU",
        "train.tensorboard.enabled=True",
        "train.tensorboard.sample_images=2",
        "dataloader.train.total_batch_size=4",
        "+dataloader.evaluator.save_labels=True",
    )
    return output, results


def test_it_learns_and_evaluates(trained):
    output, results = trained
    assert list(results) == ["sem_seg"]
    assert results["sem_seg"]["mIoU"] > 45 and results["sem_seg"]["IoU-ground"] > 70
    first, *_, last = losses(output).values()
    assert {"total_loss", "loss_sem_seg", "loss_sem_seg_aux"} == set(last)
    assert last["total_loss"] < first["total_loss"]
    evaluated = [row for row in metrics(output) if "sem_seg/mIoU" in row]
    assert [row["iteration"] for row in evaluated] == [19, 40]
    assert evaluated[-1]["sem_seg/mIoU"] == results["sem_seg"]["mIoU"]
    assert evaluated[-1]["sem_seg/IoU-sky"] == results["sem_seg"]["IoU-sky"]


def test_what_an_evaluation_leaves(trained):
    folder = trained[0] / "inference"
    names = {path.name for path in folder.iterdir()}
    assert {"results.json", "per_class.csv", "confusion.csv", "confusion.png", "labels"} <= names
    labels = sorted(path.name for path in (folder / "labels").iterdir())
    assert labels == ["0.png", "1.png", "2.png"]
    with Image.open(folder / "labels" / "0.png") as image:
        assert image.size == (80, 64) and set(np.unique(np.asarray(image))) <= {0, 1, 2}
    assert json.loads((folder / "results.json").read_text())["images"] == 3


def test_validation_losses_are_measured(trained):
    rows = [row for row in metrics(trained[0]) if "validation/total_loss" in row]
    assert [row["iteration"] for row in rows] == [19, 40]
    for row in rows:
        parts = row["validation/loss_sem_seg"] + row["validation/loss_sem_seg_aux"]
        assert row["validation/total_loss"] == pytest.approx(parts)
    assert rows[1]["validation/total_loss"] < rows[0]["validation/total_loss"]


def test_the_best_by_miou_is_kept(trained):
    best = content(trained[0], "model_best.pth")
    values = [row["sem_seg/mIoU"] for row in metrics(trained[0]) if "sem_seg/mIoU" in row]
    assert best["metric"] == {"sem_seg/mIoU": max(values)}
    assert set(best["model"]) == set(content(trained[0])["model"])


def test_checkpoints_name_their_classes(trained):
    for name in ("model_final.pth", "model_best.pth"):
        assert content(trained[0], name)["metadata"] == {"stuff_classes": CLASSES}
    metadata = read_checkpoint_metadata(str(trained[0] / "model_final.pth"))
    assert metadata.stuff_classes == CLASSES and not metadata.get("thing_classes")


def test_sample_predictions_stand_beside_the_truth(trained):
    events = EventAccumulator(str(trained[0]), size_guidance={"images": 0, "scalars": 0})
    events.Reload()
    assert events.Tags()["images"] == ["samples/1_0", "samples/2_2"]
    for name in events.Tags()["images"]:
        found = events.Images(name)
        assert [event.step for event in found] == [19, 40]
        assert found[0].width > 900  # two panels
        assert found[0].encoded_image_string != found[1].encoded_image_string
    assert [event.step for event in events.Scalars("sem_seg/mIoU")] == [19, 40]


def test_eval_only_finds_the_same(trained, scenes, tmp_path):
    output, results = trained
    weights = f"train.init_checkpoint={output / 'model_final.pth'}"
    assert run(tmp_path, "--eval-only", weights, *scenes) == results
    assert (tmp_path / "inference" / "results.json").exists()
    again = run(output, "--eval-only", "--resume", *scenes)
    assert again == results


def test_scores_are_not_held_where_labels_suffice(trained, scenes, tmp_path, monkeypatch):
    output, results = trained
    process, seen = SegmentationEvaluator.process, []

    def note(self, inputs, outputs):
        seen.extend(key for output in outputs for key in output)
        process(self, inputs, outputs)

    monkeypatch.setattr(SegmentationEvaluator, "process", note)
    weights = f"train.init_checkpoint={output / 'model_final.pth'}"
    run(tmp_path, "--eval-only", weights, *scenes)
    assert set(seen) == {"sem_seg_labels"} and len(seen) == 3
    monkeypatch.setattr(SegmentationEvaluator, "labels_suffice", False)
    found = run(tmp_path, "--eval-only", weights, *scenes)["sem_seg"]
    assert set(seen[3:]) == {"sem_seg"}
    assert found == pytest.approx(results["sem_seg"], abs=0.5)  # but for ties


def test_test_time_augmentation_and_windows(trained, scenes, tmp_path):
    output, results = trained
    weights = f"train.init_checkpoint={output / 'model_final.pth'}"
    views = ["train.test_time_augmentation.enabled=True"]
    views += ["train.test_time_augmentation.scales=[0.75,1.25]"]
    windows = ["train.sliding_window.enabled=True", "train.sliding_window.window=[48,48]"]
    windows += ["train.sliding_window.stride=[32,32]"]
    found = [
        run(tmp_path, "--eval-only", weights, *scenes, *overrides)["sem_seg"]
        for overrides in (views, windows, [*views, *windows])
    ]
    for values in found:
        assert values["mIoU"] > 30 and values["mIoU"] != results["sem_seg"]["mIoU"]
    assert len({values["fwIoU"] for values in found}) == 3
    log = (tmp_path / "log.txt").read_text()
    assert "4 views of each image" in log and "Sliding windows of 48 x 48 pixels" in log


# --- interrupted


TAKEN_UP = [
    "train.amp.enabled=True",
    "train.amp.dtype=bfloat16",
    "train.accumulation_steps=2",
    "train.ema.enabled=True",
    "train.clip_grad=1.0",
]


@pytest.fixture(scope="module")
def unbroken(scenes, tmp_path_factory):
    """Six steps with everything that a resumed run must take up, and their losses."""
    output = tmp_path_factory.mktemp("unbroken")
    return output, run_recorded(output, *scenes, *TAKEN_UP)


def test_half_precision_accumulation_and_averages(unbroken):
    output, recorded = unbroken
    assert list(recorded) == list(range(6))
    average = content(output, "model_final_ema.pth")["model"]
    weights = content(output)["model"]
    assert average.keys() == weights.keys()
    name = "sem_seg_head.predictor.weight"
    assert not torch.equal(average[name], weights[name])
    assert all(math.isfinite(v) for row in losses(output).values() for v in row.values())
    assert "grad_norm" in metrics(output)[0]


@pytest.mark.parametrize("last", [1, 3])
def test_resumed_from_any_checkpoint_it_is_the_unbroken_run(unbroken, scenes, tmp_path, last):
    """As after a kill between two checkpoints: what was done since is done again."""
    whole, recorded = unbroken
    output = tmp_path / "resumed"
    shutil.copytree(whole, output)
    (output / "last_checkpoint").write_text(f"model_{last:07d}.pth")
    (output / "model_final.pth").unlink()
    again = run_recorded(output, "--resume", "train.seed=99", *scenes, *TAKEN_UP)
    assert again == {i: recorded[i] for i in range(last + 1, 6)}
    assert list(losses(output)) == list(range(6))
    assert_same_weights(output, whole)
    assert_same_weights(output, whole, "model_final_ema.pth")


def test_stopped_on_request_and_resumed_it_is_the_unbroken_run(unbroken, scenes, tmp_path):
    whole, recorded = unbroken
    first = run_recorded(tmp_path, *scenes, *TAKEN_UP, interrupted_after=2)
    second = run_recorded(tmp_path, "--resume", *scenes, *TAKEN_UP)
    assert 3 in first and min(second) == max(first) + 1
    assert {**first, **second} == recorded
    assert_same_weights(tmp_path, whole)


@pytest.mark.slow  # to start another process
def test_killed_and_resumed_it_is_the_unbroken_run(scenes, tmp_path):
    arguments = [*scenes, *TAKEN_UP, "train.checkpointer.period=1"]
    # A learning rate that does not depend on the length of the training.
    arguments += ["lr_multiplier.scheduler.end_value=1.0", "lr_multiplier.warmup_factor=1.0"]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    with started(killed, *arguments, "train.max_iter=1000000", config=CONFIG) as program:
        wait_for(lambda: training(killed))
        os.kill(program.pid, signal.SIGKILL)
        program.communicate(timeout=LIMIT)
    done = int((killed / "last_checkpoint").read_text()[len("model_") : -len(".pth")]) + 1
    arguments.append(f"train.max_iter={done + 3}")
    again = run_recorded(killed, "--resume", *arguments)
    recorded = run_recorded(whole, *arguments)
    assert again == {i: recorded[i] for i in range(done, done + 3)}
    assert_same_weights(killed, whole)


# --- several processes


@pytest.mark.slow
def test_two_processes_train_as_one_does(scenes, tmp_path):
    """Where nothing is drawn at random, and all crops have equally many pixels that count."""
    overrides = [
        *write_scenes(tmp_path / "data", num_train=8, border=0),
        "dataloader.train.total_batch_size=4",
        "model.backbone.drop_path_rate=0.0",
        "model.sem_seg_head.dropout=0.0",
        "model.sem_seg_head.auxiliary.dropout=0.0",
        "train.eval_period=3",
        "optimizer.lr=0.001",
    ]
    one, several = tmp_path / "one", tmp_path / "several"
    results = run(one, *overrides)
    with started(several, "--num-gpus=2", *overrides, config=CONFIG) as program:
        _, stderr = program.communicate(timeout=LIMIT)
    assert program.returncode == 0, stderr
    assert_same_training(one, several, rtol=1e-3)
    assert results["sem_seg"]["pACC"] > 20


# --- bad input


def test_images_whose_pixels_are_all_ignored_teach_nothing(tmp_path):
    scenes = write_scenes(tmp_path / "data", num_train=4, ignored=range(4))
    results = run(tmp_path / "out", *scenes, "train.max_iter=3", "train.eval_period=3")
    assert [row["total_loss"] for row in losses(tmp_path / "out").values()] == [0, 0, 0]
    assert all(map(math.isnan, results["sem_seg"].values()))
    assert "NaN" not in (tmp_path / "out" / "metrics.json").read_text()
    log = (tmp_path / "out" / "log.txt").read_text()
    assert "All pixels of the 3 label images" in log
    with pytest.raises(ConfigError, match=r"val_loss has no images with anything to learn"):
        run(tmp_path / "out", *scenes, "train.max_iter=3", "train.val_loss_period=3")


def test_one_of_them_leaves_the_validation_losses_of_the_others(tmp_path):
    every = write_scenes(tmp_path / "every", num_test=4, ignored=[1, 3])
    others = write_scenes(tmp_path / "others", num_test=4, ignored=[1, 3])
    for number in (1, 3):
        for kind in ("images", "labels"):
            (tmp_path / "others/test" / kind / f"{number}.png").unlink()
    found = []
    for name, scenes in (("every", every), ("others", others)):
        output = tmp_path / "out" / name
        run(output, *scenes, "train.max_iter=2", "train.val_loss_period=2", "optimizer.lr=0.0")
        found += [
            row["validation/total_loss"]
            for row in metrics(output)
            if "validation/total_loss" in row
        ]
    assert len(found) >= 2
    assert len({round(value, 6) for value in found}) == 1 and found[0] > 0.5


def test_a_head_for_other_classes_is_refused(scenes, tmp_path):
    message = r"model\.sem_seg_head is made for 7 classes, but .*scenes_train.* has 3: set "
    with pytest.raises(ConfigError, match=message + r"model\.sem_seg_head\.num_classes=3"):
        run(tmp_path, *scenes, "model.sem_seg_head.num_classes=7")


def test_labels_of_another_size_end_the_evaluation_in_a_sentence(tmp_path, trained):
    scenes = write_scenes(tmp_path / "data", num_test=1)
    path = tmp_path / "data/test/labels/0.png"
    Image.fromarray(np.zeros((10, 12), dtype=np.uint8)).save(path)
    weights = f"train.init_checkpoint={trained[0] / 'model_final.pth'}"
    with pytest.raises(DataError, match=r"0\.png is 12x10 pixels, but its image"):
        run(tmp_path / "out", "--eval-only", weights, *scenes)
