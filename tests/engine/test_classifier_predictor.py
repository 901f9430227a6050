"""Classifiers from Python: images and videos in, scores of named classes out."""

import logging

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from torchvision.transforms import v2
from toy_classifier import NAMES, make_config

import iwin_d2
from iwin_d2 import ClassifierPredictor, Predictor
from iwin_d2.d2.config import LazyCall as L
from iwin_d2.d2.config import LazyConfig, instantiate
from iwin_d2.d2.data import build_detection_test_loader
from iwin_d2.data.classification.evaluator import ClassificationEvaluator
from iwin_d2.data.classification.image_folder import image_folder_classes, num_image_folder_classes
from iwin_d2.data.classification.image_mapper import ImageMapper
from iwin_d2.data.video.mapper import VideoMapper
from iwin_d2.data.video.sampling import SpacedClips
from iwin_d2.data.video.transforms import ThreeCrops
from iwin_d2.engine.classification import do_train
from iwin_d2.errors import ConfigError, DataError
from iwin_d2.modeling import IwinClassifier, IwinTransformer3D, VideoClassifier

MEAN, STD = [110.0, 120.0, 130.0], [50.0, 60.0, 70.0]
SMALL = {"embed_dim": 8, "depths": [1] * 4, "num_heads": [1, 1, 2, 2], "window_size": 2}


def config(model, mapper, names=NAMES):
    return OmegaConf.create(
        {
            "model": model,
            "dataloader": {
                "pixel_mean": MEAN,
                "pixel_std": STD,
                "test": L(build_detection_test_loader)(dataset=[], mapper=mapper),
                "evaluator": L(ClassificationEvaluator)(class_names=names),
            },
            "train": {"device": "cpu", "init_checkpoint": ""},
        },
        flags={"allow_objects": True},
    )


def save(cfg, path, seed=0, **more):
    """Random weights for a config, strong enough that inputs differ in their scores."""
    torch.manual_seed(seed)
    model = instantiate(cfg.model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("weight") and parameter.dim() > 1:
                parameter.mul_(5)
    torch.save({"model": model.state_dict(), **more}, path)
    return str(path)


def pixels(seed, height=20, width=30):
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (height, width, 3), dtype=np.uint8)


# ---- images -------------------------------------------------------------------------------------


@pytest.fixture
def image_config():
    model = L(IwinClassifier)(num_classes=4, img_size=16, **SMALL)
    return config(model, L(ImageMapper)(augmentations=[L(v2.CenterCrop)(size=[16, 16])]))


@pytest.fixture
def predictor(image_config, tmp_path):
    return ClassifierPredictor(image_config, save(image_config, tmp_path / "x.pth"))


def expected(predictor, image):
    crop = image[2:18, 7:23].transpose(2, 0, 1)
    normalised = (crop - np.reshape(MEAN, (3, 1, 1))) / np.reshape(STD, (3, 1, 1))
    with torch.no_grad():
        return predictor.model(torch.tensor(normalised[None], dtype=torch.float32)).softmax(1)[0]


def test_files_pictures_and_arrays_of_one_image_get_the_model_s_scores(predictor, tmp_path):
    image = pixels(1)
    Image.fromarray(image).save(tmp_path / "a.png")
    given = [tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(image), image[:, :, ::-1]]
    for source in given:
        scores = predictor(source)["scores"]
        torch.testing.assert_close(scores, expected(predictor, image))
        assert float(scores.sum()) == pytest.approx(1)
    predictor.array_format = "RGB"
    torch.testing.assert_close(predictor(image)["scores"], expected(predictor, image))


def test_a_turned_photo_is_upright(predictor, tmp_path):
    image = pixels(2)
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    Image.fromarray(image[::-1, ::-1]).save(tmp_path / "a.png", exif=exif)
    for source in (tmp_path / "a.png", Image.open(tmp_path / "a.png")):
        torch.testing.assert_close(predictor(source)["scores"], expected(predictor, image))


def test_streams_and_batches_give_the_scores_of_single_images(predictor):
    images = [pixels(seed, height=16 + seed) for seed in range(7)]
    alone = [predictor(image)["scores"] for image in images]
    assert torch.stack(alone).std(0).max() > 1e-3  # they do differ
    for found in (predictor.batch(images), predictor.stream(iter(images), batch_size=3)):
        for one, other in zip(alone, found, strict=True):
            torch.testing.assert_close(one, other["scores"])
    assert predictor.batch([]) == []


def test_a_mapper_of_another_kind_gets_a_file(image_config, tmp_path):
    class Own(ImageMapper):
        def __call__(self, record):
            assert record["file_name"].endswith("image.bmp")
            return super().__call__(record)

    weights = save(image_config, tmp_path / "x.pth")
    plain = ClassifierPredictor(image_config, weights)
    own = ClassifierPredictor(image_config, weights)
    own.mapper = Own(plain.mapper.augmentations)
    torch.testing.assert_close(own(pixels(3))["scores"], plain(pixels(3))["scores"])


def test_top_names_the_highest_scores(predictor):
    output = {"scores": torch.tensor([0.1, 0.4, 0.1, 0.4])}
    top = predictor.top(output, 3)
    assert [(found.number, found.name) for found in top] == [
        (1, "upper right"),
        (3, "lower right"),
        (0, "upper left"),
    ]
    assert [found.score for found in top] == pytest.approx([0.4, 0.4, 0.1])
    assert len(predictor.top(output)) == 4
    with pytest.raises(ConfigError, match=r"top\(0\): give a number of classes"):
        predictor.top(output, 0)
    with pytest.raises(ConfigError, match="no classifier's"):
        predictor.top({"instances": []})


def test_mixed_precision_gives_float32(image_config, tmp_path):
    weights = save(image_config, tmp_path / "x.pth")
    scores = ClassifierPredictor(image_config, weights, amp="bfloat16")(pixels(1))["scores"]
    assert scores.dtype == torch.float32
    exact = ClassifierPredictor(image_config, weights)(pixels(1))["scores"]
    torch.testing.assert_close(scores, exact, atol=0.05, rtol=0)
    assert not torch.equal(scores, exact)


# ---- names --------------------------------------------------------------------------------------


def test_a_checkpoint_with_names_needs_no_data(image_config, tmp_path):
    weights = save(image_config, tmp_path / "x.pth", metadata={"classes": list("abcd")})
    image_config.model.num_classes = L(num_image_folder_classes)(root="nowhere")
    image_config.dataloader.evaluator.class_names = L(image_folder_classes)(root="nowhere")
    LazyConfig.save(image_config, str(tmp_path / "config.yaml"))
    for given in (image_config, tmp_path / "config.yaml"):
        predictor = ClassifierPredictor(given, weights)
        assert predictor.class_names == list("abcd")
        assert predictor.top(predictor(pixels(1)), 1)[0].name in "abcd"


def test_without_names_classes_are_numbers(image_config, tmp_path, caplog):
    weights = save(image_config, tmp_path / "x.pth")
    image_config.dataloader.evaluator.class_names = "???"
    predictor = ClassifierPredictor(image_config, weights)
    with caplog.at_level(logging.WARNING, "iwin_d2"):
        assert predictor.class_names is None
    assert [found.name for found in predictor.top({"scores": torch.arange(4.0)}, 2)] == ["3", "2"]


def test_names_of_another_number_are_not_believed(image_config, tmp_path):
    weights = save(image_config, tmp_path / "x.pth", metadata={"classes": ["a", "b"]})
    assert ClassifierPredictor(image_config, weights).class_names is None


def test_training_writes_the_names(tmp_path):
    do_train(make_config(tmp_path, max_iter=1))
    content = torch.load(tmp_path / "model_final.pth", weights_only=True)
    assert content["metadata"] == {"classes": list(NAMES)}


# ---- videos -------------------------------------------------------------------------------------


@pytest.fixture
def video_config():
    backbone = L(IwinTransformer3D)(num_frames=4, **SMALL)
    model = L(VideoClassifier)(backbone=backbone, num_classes=4)
    mapper = L(VideoMapper)(
        is_train=False,
        sampler=L(SpacedClips)(num_clips=2, num_frames=4, stride=2),
        transforms=[L(ThreeCrops)(size=16)],
    )
    return config(model, mapper)


@pytest.fixture
def video_predictor(video_config, tmp_path):
    return ClassifierPredictor(video_config, save(video_config, tmp_path / "x.pth"))


def write_frames(folder, count=11):
    folder.mkdir()
    frames = [pixels(number) for number in range(count)]
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"img_{number:05}.png")
    return frames


def test_folders_of_frames_and_frames_in_memory_get_the_same_scores(video_predictor, tmp_path):
    frames = write_frames(tmp_path / "frames")
    record = {"file_name": str(tmp_path / "frames"), "label": 0, "image_id": 0}
    views = video_predictor.mapper(record)["video"].float()
    assert views.shape == (6, 3, 4, 16, 16)
    mean, std = (torch.tensor(values).view(3, 1, 1, 1) for values in (MEAN, STD))
    with torch.no_grad():
        wanted = video_predictor.model(((views - mean) / std)[None])[0]
    paths = sorted((tmp_path / "frames").iterdir())
    stacked = np.stack(frames)[..., ::-1]
    pictures = [Image.fromarray(frame) for frame in frames]
    for source in (tmp_path / "frames", stacked, list(stacked), pictures, paths):
        torch.testing.assert_close(video_predictor(source)["scores"], wanted)
    assert video_predictor.takes_videos
    turned = video_predictor(stacked[::-1])["scores"]
    assert not torch.allclose(turned, wanted)


def test_frames_are_made_small_as_they_are_read_and_views_stay_the_same(
    video_predictor, video_config, tmp_path
):
    write_frames(tmp_path / "frames")
    record = {"file_name": str(tmp_path / "frames"), "image_id": 0}
    views = instantiate(video_config.dataloader.test.mapper)(record)["video"]
    assert torch.equal(video_predictor.prepare(tmp_path / "frames")["video"], views)
    assert video_predictor.shrink(torch.zeros(3, 40, 60, dtype=torch.uint8)).shape == (3, 16, 24)


def test_a_video_file_and_its_frames_get_the_same_scores(video_predictor, tmp_path):
    pytest.importorskip("av", reason="PyAV is not installed")
    from iwin_d2.data.video.decode import VideoFile
    from iwin_d2.data.video.encode import write_clip

    write_clip(tmp_path / "a.mp4", (pixels(number) for number in range(11)))
    with VideoFile(tmp_path / "a.mp4") as video:
        frames = video.read(range(len(video))).permute(0, 2, 3, 1).numpy()
    scores = video_predictor(tmp_path / "a.mp4")["scores"]
    torch.testing.assert_close(scores, video_predictor(frames[..., ::-1])["scores"])


def test_a_video_that_is_shorter_than_a_clip_is_classified(video_predictor):
    scores = video_predictor([pixels(1)])["scores"]
    assert scores.shape == (4,) and float(scores.sum()) == pytest.approx(1)


# ---- what cannot be classified ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere.png", "There is no image nowhere.png"),
        ([pixels(1)], "list is no image"),
        (np.zeros((4, 4, 3)), "array of float64"),
    ],
)
def test_what_is_no_image_is_refused(predictor, source, message):
    with pytest.raises(DataError, match=message):
        predictor(source)


def test_a_damaged_image_is_refused(predictor, tmp_path):
    (tmp_path / "a.png").write_text("no image")
    with pytest.raises(DataError, match=r"a\.png is not an image file"):
        predictor(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere.mp4", "There is no video nowhere.mp4"),
        (pixels(1), "this is an image: give the path of a video"),
        (7, "this is of type int: give the path of a video"),
        ([], "There are no frames"),
    ],
)
def test_what_is_no_video_is_refused(video_predictor, source, message):
    with pytest.raises(DataError, match=message):
        video_predictor(source)


def test_a_failing_augmentation_is_named(predictor):
    predictor.mapper.augmentations.insert(0, lambda image: 1 / 0)
    with pytest.raises(DataError, match=r"ZeroDivisionError.*check dataloader\.test\.mapper"):
        predictor(pixels(1))


def test_each_predictor_refuses_the_other_s_configs(image_config, tmp_path):
    with pytest.raises(ConfigError, match=r"use iwin_d2\.ClassifierPredictor"):
        Predictor(image_config, "x.pth")
    del image_config.dataloader.pixel_mean
    with pytest.raises(ConfigError, match=r"use iwin_d2\.Predictor"):
        ClassifierPredictor(image_config, "x.pth")
    with pytest.raises(ConfigError, match="give 'BGR' or 'RGB'"):
        ClassifierPredictor(image_config, "x.pth", array_format="HSV")


def test_the_package_has_it():
    assert iwin_d2.ClassifierPredictor is ClassifierPredictor
    assert "ClassifierPredictor" in dir(iwin_d2)
