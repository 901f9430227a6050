"""What a config's train section does to a training: on a small detector, and on the cascade."""

import logging
import math
from pathlib import Path

import pytest
import torch
from resume_driver import Guesser, make_config

from iwin_d2.config_overrides import apply_overrides
from iwin_d2.d2.config import LazyCall as L
from iwin_d2.d2.config import LazyConfig, instantiate
from iwin_d2.d2.data import build_detection_test_loader
from iwin_d2.d2.evaluation import DatasetEvaluator
from iwin_d2.data.shapes import generate_shapes_dataset
from iwin_d2.engine import detection
from iwin_d2.engine.class_names import read_checkpoint_metadata, training_classes
from iwin_d2.engine.detection import do_train
from iwin_d2.engine.reproducible import seed_everything, use_deterministic_algorithms
from iwin_d2.engine.validation import validation_losses
from iwin_d2.errors import ConfigError, TrainingError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes") / "data"
    generate_shapes_dataset(folder, num_train=6, num_val=3, image_size=(48, 64))
    return folder


@pytest.fixture
def config(shapes, tmp_path):
    """Six steps on a small detector, in float32."""
    cfg = make_config(shapes, tmp_path, max_iter=6)
    cfg.dataloader.train.num_workers = 0
    cfg.train.update(amp={"enabled": False}, ema={"enabled": False}, accumulation_steps=1)
    cfg.train.deterministic = False
    return cfg


@pytest.fixture
def log(caplog):
    """The messages of this package, whether or not its log goes up to the root."""
    logger = logging.getLogger("iwin_d2.engine")
    level = logger.level
    logger.addHandler(caplog.handler)
    logger.setLevel(logging.INFO)
    yield caplog
    logger.removeHandler(caplog.handler)
    logger.setLevel(level)


def trained(cfg, resume=False):
    """Train and return the content of the last checkpoint."""
    if not resume:
        seed_everything(3)
    do_train(cfg, resume=resume)
    return torch.load(Path(cfg.train.output_dir) / "model_final.pth")


def first_lr(content):
    return content["trainer"]["optimizer"]["param_groups"][0]["initial_lr"]


def test_the_learning_rate_is_scaled_to_the_images_a_step_and_both_are_logged(config, log):
    config.optimizer.lr = 0.008
    config.train.update(lr_reference_batch_size=24, accumulation_steps=2)
    assert first_lr(trained(config)) == pytest.approx(0.002)
    expected = (
        "Learning rate 0.008 for 24 images, scaled by 0.25 for 6 images a step "
        "(1 processes, 2 batches accumulated)"
    )
    assert expected in log.text


def test_a_learning_rate_as_the_config_says_is_logged_with_the_images_a_step(config, log):
    assert first_lr(trained(config)) == 0.01
    assert "Learning rate 0.01 for 3 images a step (1 processes, 1 batches accumu" in log.text


def test_a_loader_that_does_not_tell_its_batch_cannot_be_scaled_for(config):
    config.train.lr_reference_batch_size = 16
    config.dataloader.train = L(list)()
    with pytest.raises(ConfigError, match="lr_reference_batch_size is set, but the training load"):
        do_train(config)


def test_settings_changed_at_a_resume_win_over_the_checkpoints(config, log):
    config.train.max_iter = 3
    trained(config)
    config.train.max_iter = 6
    config.optimizer.update(lr=0.004, weight_decay=0.3)
    content = trained(config, resume=True)
    assert first_lr(content) == 0.004
    assert content["trainer"]["optimizer"]["param_groups"][0]["weight_decay"] == 0.3
    assert "Resuming with initial_lr=0.004, it was 0.01" in log.text


def test_more_iterations_can_be_asked_for_and_none_are_done_twice(config, log):
    config.train.max_iter = 3
    trained(config)
    again = trained(config, resume=True)
    assert "Trained up to iteration 3 already" in log.text
    assert again["iteration"] == 2


def test_a_training_that_diverges_can_be_taken_up_before_it_did(config, tmp_path, monkeypatch):
    forward = Guesser.forward
    calls = []

    def diverge(self, batch):
        calls.append(1)
        losses = forward(self, batch)
        return losses if len(calls) != 4 else {k: v * math.inf for k, v in losses.items()}

    whole = trained(config)
    config.train.output_dir = str(tmp_path / "diverged")
    (tmp_path / "diverged").mkdir()
    config.train.checkpointer.period = 100
    monkeypatch.setattr(Guesser, "forward", diverge)
    with pytest.raises(TrainingError, match=r"iteration 3: .*\.jpg|\.png.*model_0000002\.pth"):
        trained(config)
    resumed = trained(config, resume=True)  # the fifth call is finite again
    for name, value in whole["model"].items():
        torch.testing.assert_close(resumed["model"][name], value, rtol=0, atol=0)


def test_diverging_at_the_very_first_step_leaves_the_initial_weights(config, monkeypatch, tmp_path):
    monkeypatch.setattr(
        Guesser, "forward", lambda self, batch: {"a": self.head.bias.sum() * math.nan}
    )
    with pytest.raises(TrainingError, match=r"model_initial\.pth"):
        do_train(config)
    content = torch.load(tmp_path / "model_initial.pth")
    assert content["trainer"]["iteration"] == -1


class Bias(DatasetEvaluator):
    """Calls the head's bias a result."""

    seen = None

    def process(self, inputs, outputs):
        pass

    def evaluate(self):
        return {"toy": {"bias": Bias.seen, "other": math.nan}}


def with_evaluation(config, monkeypatch):
    config.dataloader.test = L(list)()
    config.dataloader.evaluator = L(Bias)()
    config.train.update(eval_period=2, best_checkpoint={"metric": "toy/bias", "mode": "max"})
    weights = []

    def inference(model, loader, evaluator):
        Bias.seen = model.head.bias[0].item()
        weights.append(model.head.bias.clone())
        return evaluator.evaluate()

    monkeypatch.setattr(detection, "inference_on_dataset", inference)
    return weights


@pytest.mark.parametrize("ema", [False, True])
def test_the_best_weights_are_those_that_were_evaluated(config, tmp_path, monkeypatch, ema):
    evaluated = with_evaluation(config, monkeypatch)
    config.train.ema.update(enabled=ema, decay=0.5)
    final = trained(config)
    best = torch.load(tmp_path / "model_best.pth")
    values = [bias[0].item() for bias in evaluated]
    assert len(values) == 3 and best["metric"]["toy/bias"] == max(values)
    number = values.index(max(values))
    assert torch.equal(best["model"]["head.bias"], evaluated[number])
    assert best["iteration"] == [1, 3, 5][number]
    assert torch.equal(evaluated[-1], final["model"]["head.bias"]) != ema


def test_deterministic_mode_is_what_the_config_says(config):
    config.train.max_iter = 1
    for wanted in (True, False):
        config.train.deterministic = wanted
        trained(config)
        assert torch.are_deterministic_algorithms_enabled() == wanted


def test_checkpoints_name_their_classes(config, tmp_path):
    names = training_classes(config)
    assert len(names["thing_classes"]) > 1 and all(
        isinstance(n, str) for n in names["thing_classes"]
    )
    config.train.ema.update(enabled=True, decay=0.5)
    assert trained(config)["metadata"] == names
    for name in ("model_final.pth", "model_final_ema.pth"):
        metadata = read_checkpoint_metadata(str(tmp_path / name))
        assert metadata.thing_classes == names["thing_classes"]
    config.dataloader.train = L(list)()  # a loader that says nothing of its data
    assert training_classes(config) is None


# ---- validation losses --------------------------------------------------------------------------


def add_val_loss(config, batch_size=2):
    config.dataloader.val_loss = L(build_detection_test_loader)(
        dataset=config.dataloader.train.dataset,
        mapper=config.dataloader.train.mapper,
        batch_size=batch_size,
    )


def test_validation_losses_are_the_mean_over_images_and_change_nothing(config):
    config.dataloader.train.mapper.augmentations = []
    add_val_loss(config, batch_size=2)
    model = Guesser()
    model(next(iter(instantiate(config.dataloader.train))))  # BatchNorm statistics of its own
    before = {name: value.clone() for name, value in model.state_dict().items()}
    losses = validation_losses(model, config)
    assert validation_losses(model, config) == losses  # no dropout
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())

    model.eval()
    with torch.no_grad():
        items = list(instantiate(config.dataloader.val_loss))
        expected = [model(batch)["loss_abs"].item() * len(batch) for batch in items]
    assert losses["loss_abs"] == pytest.approx(sum(expected) / 6)
    assert losses["total_loss"] == pytest.approx(losses["loss_abs"] + losses["loss_square"])


def test_validation_losses_choose_the_best_weights(config, tmp_path):
    add_val_loss(config)
    config.train.update(val_loss_period=2)
    config.train.best_checkpoint = {"metric": "validation/total_loss", "mode": "min"}
    trained(config)
    best = torch.load(tmp_path / "model_best.pth")
    text = (tmp_path / "metrics.json").read_text()
    assert text.count("validation/total_loss") == 3
    assert str(best["metric"]["validation/total_loss"])[:8] in text


def test_validation_losses_without_a_loader_are_refused(config, tmp_path):
    config.train.val_loss_period = 2
    with pytest.raises(ConfigError, match=r"no dataloader\.val_loss"):
        trained(config)
    assert not list(tmp_path.iterdir())  # before anything is trained


# ---- the cascade --------------------------------------------------------------------------------


def cascade_config(shapes, output, *overrides):
    cfg = LazyConfig.load(str(ROOT / "projects/cascade_mask_rcnn/configs/quickstart.py"))
    settings = [
        f"dataset.train_json={shapes}/annotations/instances_train.json",
        f"dataset.train_images={shapes}/train",
        f"dataset.test_json={shapes}/annotations/instances_val.json",
        f"dataset.test_images={shapes}/val",
        f"train.output_dir={output}",
        "train.device=cpu",
        "train.max_iter=4",
        "train.checkpointer.period=2",
        "train.deterministic=True",
        "dataloader.train.total_batch_size=2",
        "dataloader.train.num_workers=0",
        "dataloader.test.num_workers=0",
        "model.backbone.bottom_up.drop_path_rate=0.3",
        *overrides,
    ]
    cfg = apply_overrides(cfg, settings)
    cfg.dataloader.pop("evaluator")
    return cfg


@pytest.fixture
def deterministic_again():
    yield
    use_deterministic_algorithms(False)


def test_the_cascade_resumes_to_the_bit(shapes, tmp_path, deterministic_again):
    whole = cascade_config(shapes, tmp_path / "whole")
    Path(whole.train.output_dir).mkdir()
    expected = trained(whole)["model"]

    parts = cascade_config(shapes, tmp_path / "parts")
    Path(parts.train.output_dir).mkdir()
    trained(parts)
    for name in ("model_final.pth", "model_0000003.pth", "last_checkpoint"):
        (tmp_path / "parts" / name).unlink()  # as if killed after two steps
    seed_everything(99)
    content = trained(parts, resume=True)
    assert (tmp_path / "parts" / "model_0000003.pth").exists()
    different = [
        name for name, value in expected.items() if not torch.equal(content["model"][name], value)
    ]
    assert not different


def test_the_cascade_has_validation_losses(shapes, tmp_path):
    cfg = cascade_config(shapes, tmp_path)
    seed_everything(0)
    model = instantiate(cfg.model)
    losses = validation_losses(model, cfg)
    assert validation_losses(model, cfg) == losses
    assert len(losses) == 2 + 3 * 3 + 1  # of the RPN, of three stages, their sum
    assert all(math.isfinite(value) for value in losses.values())
    assert model.training
