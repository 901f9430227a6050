"""Test-time augmentation as configs and the command line ask for it: evaluation and prediction."""

import logging
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from resume_driver import Guesser, make_config
from torch import nn

import iwin_d2
from iwin_d2.d2.config import LazyCall as L
from iwin_d2.d2.config import instantiate
from iwin_d2.d2.data import build_detection_test_loader, get_detection_dataset_dicts
from iwin_d2.d2.engine import default_argument_parser
from iwin_d2.d2.evaluation import DatasetEvaluator
from iwin_d2.data.shapes import generate_shapes_dataset
from iwin_d2.engine.config_check import check_config_keys
from iwin_d2.engine.detection import do_test, do_train, load_config, run_detection
from iwin_d2.engine.settings import TrainSettings, TTASettings
from iwin_d2.engine.tta import as_evaluated
from iwin_d2.errors import ConfigError
from iwin_d2.modeling.tta import SCALES, DetectorWithTTA

ROOT = Path(__file__).resolve().parents[2]
CONFIG = str(ROOT / "projects/mask_rcnn/configs/quickstart.py")
ON = "train.test_time_augmentation.enabled=True"
SCALE_LIST = "train.test_time_augmentation.scales=[0.75,1.0,1.5]"


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes") / "data"
    return generate_shapes_dataset(folder, num_train=3, num_val=2, image_size=(60, 80))


@pytest.fixture(scope="module")
def overrides(shapes):
    """The quickstart's Mask R-CNN on the shapes, smaller yet."""
    return [
        f"dataset.train_json={shapes.train_json}",
        f"dataset.train_images={shapes.train_images}",
        f"dataset.test_json={shapes.val_json}",
        f"dataset.test_images={shapes.val_images}",
        "dataloader.test.mapper.augmentations.0.short_edge_length=64",
        "dataloader.test.num_workers=0",
        "model.roi_heads.box_predictor.test_score_thresh=0.0",
        "model.roi_heads.box_predictor.test_topk_per_image=20",
        "model.proposal_generator.post_nms_topk=[30,10]",
    ]


@pytest.fixture(scope="module")
def weights(overrides, tmp_path_factory):
    torch.manual_seed(0)
    model = instantiate(load_config(CONFIG, overrides).model)
    model.roi_heads.box_predictor.cls_score.weight.data *= 30
    path = tmp_path_factory.mktemp("weights") / "weights.pth"
    torch.save({"model": model.state_dict()}, path)
    return str(path)


class Collect(DatasetEvaluator):
    """Keeps what it is given."""

    def reset(self):
        self.found = []

    def process(self, inputs, outputs):
        self.found += [output["instances"] for output in outputs]

    def evaluate(self):
        return {"all": {"scores": float(sum(x.scores.sum() for x in self.found))}}


def train_section(**values):
    return OmegaConf.create({"test_time_augmentation": values})


# ---- settings -----------------------------------------------------------------------------------


def test_off_where_a_config_does_not_ask_for_it():
    model = nn.Linear(1, 1)
    for train in (None, OmegaConf.create({}), train_section(scales=[1], flip=True)):
        assert as_evaluated(model, train) is model
    assert TTASettings.read(train_section(enabled=False, scales="nonsense")) is None


def test_defaults_and_the_common_config_are_detectron2s_for_800_pixels():
    settings = TTASettings.read(train_section(enabled=True))
    assert settings == TTASettings(scales=SCALES, flip=True)
    assert [800 * scale for scale in SCALES] == list(range(400, 1201, 100))
    common = load_config(str(ROOT / "configs/common/train.py"), [ON]).train
    assert TTASettings.read(common) == settings
    assert TTASettings.read(train_section(enabled=True, flip=False)).flip is False


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("enabled", "yes"),
        ("flip", 2),
        ("scales", 1.0),
        ("scales", []),
        ("scales", [1.0, 0]),
        ("scales", [1.0, -2]),
        ("scales", [True]),
        ("scales", ["1"]),
        ("scales", [float("inf")]),
    ],
)
def test_nonsense_is_named_before_anything_is_built(key, value):
    train = train_section(**{"enabled": True, key: value})
    for read in (TTASettings.read, TrainSettings.read):
        with pytest.raises(ConfigError, match=rf"^train\.test_time_augmentation\.{key}=.* set it"):
            read(train)


def test_misspelt_keys_are_named():
    cfg = load_config(CONFIG, ["+train.test_time_augmentation.scale=[1]"])
    with pytest.raises(ConfigError, match=r"Did you mean train\.test_time_augmentation\.scales\?"):
        check_config_keys(cfg, "c.py")
    cfg = load_config(CONFIG, ["+train.test_time_augmentations.enabled=True"])
    with pytest.raises(ConfigError, match=r"Did you mean train\.test_time_augmentation\?"):
        check_config_keys(cfg, "c.py")


def test_the_views_are_logged(overrides, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("iwin_d2"), "propagate", True)
    caplog.set_level(logging.INFO, "iwin_d2.engine.tta")
    cfg = load_config(CONFIG, [*overrides, ON, SCALE_LIST])
    as_evaluated(instantiate(cfg.model), cfg.train)
    text = "Test-time augmentation: 6 views of each image, scales 0.75, 1, 1.5, each flipped, too"
    assert text in caplog.text


# ---- evaluation ---------------------------------------------------------------------------------


def test_evaluation_takes_the_views(overrides, weights):
    cfg = load_config(CONFIG, [*overrides, ON, SCALE_LIST])
    cfg.dataloader.evaluator = collect = Collect()
    model = instantiate(cfg.model)
    model.load_state_dict(torch.load(weights)["model"])
    model.train()
    do_test(cfg, model)
    assert model.training and all(module.training for module in model.modules())
    found = collect.found
    cfg.train.test_time_augmentation.enabled = False
    do_test(cfg, model)
    inputs = [item for batch in instantiate(cfg.dataloader.test) for item in batch]
    with torch.no_grad():
        expected = DetectorWithTTA(model.eval(), (0.75, 1.0, 1.5))(inputs[:1])
    assert len(found) == len(collect.found) == 2
    assert len(found[0]) > 3
    torch.testing.assert_close(
        found[0].pred_boxes.tensor, expected[0]["instances"].pred_boxes.tensor
    )
    assert not torch.equal(found[0].scores, collect.found[0].scores)  # of plain inference


def test_the_tool_evaluates_with_one_more_word(overrides, weights, tmp_path):
    plain = ["--eval-only", "--config-file", CONFIG, *overrides, f"train.init_checkpoint={weights}"]
    plain.append(f"train.output_dir={tmp_path}")
    section = "train.test_time_augmentation"
    identity = [f"{section}.scales=[1.0]", f"{section}.flip=False"]
    results = [
        run_detection(default_argument_parser().parse_args([*plain, *more]))
        for more in ([], [ON, *identity], [ON, SCALE_LIST])
    ]
    assert results[0].keys() == results[1].keys() == {"bbox", "segm"}
    for task, values in results[0].items():
        assert results[1][task] == pytest.approx(values, nan_ok=True)
    lines = [
        line
        for line in (tmp_path / "log.txt").read_text().splitlines()
        if "Test-time augmentation: " in line
    ]
    assert ["1 views" in line for line in lines] == [True, False]
    assert "6 views" in lines[1]


def test_a_model_that_cannot_is_named_before_it_is_trained(shapes, tmp_path):
    folder = Path(shapes.train_json).parents[1]
    cfg = make_config(folder, tmp_path, max_iter=2)
    train = cfg.dataloader.train
    cfg.dataloader.test = L(build_detection_test_loader)(
        dataset=L(get_detection_dataset_dicts)(names=train.dataset.names), mapper=train.mapper
    )
    cfg.dataloader.evaluator = L(Collect)()
    cfg.train.test_time_augmentation = {"enabled": True}
    with pytest.raises(ConfigError, match="but the model is a Guesser: set train"):
        do_train(cfg)
    assert not list(tmp_path.glob("*.pth"))
    with pytest.raises(ConfigError, match="Guesser"):
        do_test(cfg, Guesser())


# ---- prediction ---------------------------------------------------------------------------------


def picture(height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 5, 6, generator=generator) * 255
    resized = nn.functional.interpolate(coarse, (height, width), mode="bilinear")[0]
    return resized.permute(1, 2, 0).to(torch.uint8).numpy()


@pytest.fixture(scope="module")
def predictors(overrides, weights):
    """With test-time augmentation, and without."""
    return [
        iwin_d2.Predictor(CONFIG, weights, [*overrides, *more], device="cpu")
        for more in ([ON, SCALE_LIST], [])
    ]


def test_the_predictor_takes_the_views(predictors):
    augmented, plain = predictors
    image = picture(60, 80)
    found, without = (predictor(image)["instances"] for predictor in predictors)
    prepared = plain.prepare(image)
    with torch.no_grad():
        (expected,) = DetectorWithTTA(plain.model, (0.75, 1.0, 1.5))([prepared])
    torch.testing.assert_close(found.scores, expected["instances"].scores)
    assert found.pred_masks.shape == (len(found), 60, 80)
    assert not torch.equal(found.scores, without.scores)
    assert type(augmented.model) is type(plain.model)


def test_batches_hold_what_is_padded_alike_in_every_view(predictors):
    """Widths of 80 and 90 both become 96; but 1.5 times as wide, they become 128 and 160."""
    augmented, plain = predictors
    sizes = [(64, 80), (64, 90), (64, 84), (64, 90)]
    images = [picture(*size, seed) for seed, size in enumerate(sizes)]
    keys = [augmented._padded_size(augmented.prepare(image)["image"]) for image in images]
    assert len({plain._padded_size(plain.prepare(image)["image"]) for image in images}) == 1
    assert len(set(keys)) == 2 and len(keys[0]) == 6 * 2
    single = [augmented(image)["instances"] for image in images]
    for expected, output in zip(single, augmented.stream(images, batch_size=4, workers=0)):
        found = output["instances"]
        torch.testing.assert_close(found.scores, expected.scores)
        torch.testing.assert_close(
            found.pred_boxes.tensor, expected.pred_boxes.tensor, rtol=1e-4, atol=1e-3
        )


def test_little_memory_names_the_scales(predictors, monkeypatch):
    augmented, plain = predictors

    def too_large(*args):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    for predictor, named in ((augmented, True), (plain, False)):
        monkeypatch.setattr(type(predictor._evaluated), "forward", too_large)
        with pytest.raises(ConfigError, match="too little memory") as caught:
            predictor(picture(60, 80))
        assert ("or train.test_time_augmentation.scales." in str(caught.value)) is named
        monkeypatch.undo()
