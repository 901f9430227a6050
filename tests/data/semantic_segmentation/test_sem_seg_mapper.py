"""From records to the model's input, alone and through the loaders."""

import traceback
import uuid
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from label_files import LABELS, coloured, make_set, turned, write_labels, write_picture
from PIL import Image

from iwin_d2.d2.data import build_detection_test_loader
from iwin_d2.d2.data import transforms as T
from iwin_d2.data.loader import build_train_loader
from iwin_d2.data.segmentation_shapes import generate_segmentation_dataset
from iwin_d2.data.semantic_segmentation import (
    PadTo,
    PhotometricDistortion,
    RandomCropByLabels,
    ResizeByRatio,
    SemSegMapper,
    load_registered_segmentation,
    register_folder,
)
from iwin_d2.errors import AugmentationError, ConfigError, DataError


def records(root: Path, max_bad_images: int = 0, **settings) -> list[dict]:
    """The records of a folder; a new one without fault where there is none."""
    if not (root / "images").exists():
        make_set(root)
    name = f"mapper_{uuid.uuid4().hex}"
    register_folder(name, root / "images", root / "labels", root / "classes.txt", **settings)
    return load_registered_segmentation(name, max_bad_images)


def published(size: int = 48) -> list:
    """The structure of the published augmentation, at a small size."""
    return [
        ResizeByRatio((4 * size, size), (0.5, 2.0)),
        RandomCropByLabels((size, size)),
        T.RandomFlip(),
        PhotometricDistortion(),
        PadTo((size, size)),
    ]


def mapper(is_train=True, augmentations=(), **options) -> SemSegMapper:
    return SemSegMapper(is_train, augmentations=list(augmentations), **options)


def test_image_and_labels_as_tensors(tmp_path):
    record = records(tmp_path)[1]
    before = dict(record)
    mapped = mapper()(record)
    assert record == before
    picture = np.asarray(Image.open(record["file_name"]))
    assert mapped["image"].dtype == torch.uint8
    assert np.array_equal(mapped["image"].permute(1, 2, 0), picture)
    assert mapped["sem_seg"].dtype == torch.int64
    assert np.array_equal(mapped["sem_seg"], LABELS)
    for key in ("file_name", "sem_seg_file_name", "height", "width", "image_id"):
        assert mapped[key] == record[key]
    swapped = mapper(image_format="BGR")(record)
    assert torch.equal(swapped["image"], mapped["image"].flip(0))


def test_inference_reads_no_labels(tmp_path):
    record = records(tmp_path)[0]
    Path(record["sem_seg_file_name"]).unlink()
    mapped = mapper(is_train=False)(record)
    assert "sem_seg" not in mapped
    alone = mapper(is_train=False)({"file_name": record["file_name"]})
    assert torch.equal(alone["image"], mapped["image"]) and alone["height"] == 20


def test_what_values_mean_is_in_the_record(tmp_path):
    record = records(tmp_path, reduce_zero_label=True, ignore_value=99)[0]
    assert np.array_equal(mapper()(record)["sem_seg"], np.where(LABELS == 0, 255, LABELS - 1))
    other = mapper(ignore_value=7)(record)["sem_seg"]
    assert np.array_equal(other, np.where(LABELS == 0, 7, LABELS - 1))
    with pytest.raises(ConfigError, match="ignore_value=3 of the mapper is the number of a class"):
        mapper(ignore_value=3)(record)


def test_labels_go_where_their_pixels_go(tmp_path):
    """An image whose pixels are its labels stays so, but for the edges of the resize."""
    rows, columns = np.mgrid[:60, :80]
    labels = ((rows // 20) * 4 + columns // 20).astype(np.uint8)
    root = tmp_path / "blocks"
    for folder in ("images", "labels"):
        write_labels(root / folder / "a.png", labels * 20 if folder == "images" else labels)
    (root / "classes.txt").write_text("".join(f"{i}\n" for i in range(12)))
    (record,) = records(root)
    augmentations = [a for a in published() if not isinstance(a, PhotometricDistortion)]
    for seed in range(12):
        np.random.seed(seed)
        mapped = mapper(augmentations=augmentations)(record)
        image, found = mapped["image"][0].numpy().astype(int), mapped["sem_seg"].numpy()
        assert image.shape == found.shape == (48, 48)
        inside = found != 255
        agree = np.abs(image - 20 * found)[inside] < 10
        assert agree.mean() > 0.75
        assert (image[~inside] == 124).all()  # the mean of the first channel


def test_more_classes_than_a_byte_holds(tmp_path):
    make_set(tmp_path, ["a"], classes=500)
    write_labels(tmp_path / "labels" / "a.png", LABELS.astype(np.uint16) * 100)
    (record,) = records(tmp_path, ignore_value=9999)
    wide = SemSegMapper(
        True,
        augmentations=[
            ResizeByRatio((60, 40), (1.0, 1.0)),
            RandomCropByLabels((40, 40), ignore_value=9999),
            T.RandomFlip(),
            PadTo((50, 40), label_value=9999),
        ],
        ignore_value=9999,
    )
    labels = wide(record)["sem_seg"]
    assert labels.dtype == torch.int64 and labels.shape == (50, 40)
    assert labels.unique().tolist() == [0, 100, 200, 300, 400, 9999]
    with pytest.raises(ConfigError, match="set it, and the head's, to a number beyond them"):
        mapper()(record)


def test_a_picture_smaller_than_the_crop(tmp_path):
    record = records(tmp_path)[0]
    mapped = mapper(augmentations=[RandomCropByLabels((64, 64)), PadTo((64, 64))])(record)
    assert mapped["image"].shape == (3, 64, 64)
    assert np.array_equal(mapped["sem_seg"][:20, :30], LABELS)
    assert (mapped["sem_seg"][20:] == 255).all() and (mapped["sem_seg"][:, 30:] == 255).all()


def test_ignored_pixels_only(tmp_path):
    make_set(tmp_path, ["a"])
    write_labels(tmp_path / "labels" / "a.png", np.full((20, 30), 255, dtype=np.uint8))
    mapped = mapper(augmentations=published())(records(tmp_path)[0])
    assert mapped["sem_seg"].unique().tolist() == [255]


def test_one_pixel(tmp_path):
    make_set(tmp_path, ["a"])
    write_picture(tmp_path / "images" / "a.jpg", (1, 1))
    write_labels(tmp_path / "labels" / "a.png", np.zeros((1, 1), dtype=np.uint8))
    mapped = mapper(augmentations=published())(records(tmp_path)[0])
    assert mapped["image"].shape == (3, 48, 48)


def outside(path: Path) -> None:
    write_labels(path, LABELS + 3)


BAD = {
    "range": (outside, "labels", "has labels out of range: 5 in 120 pixels, 6 in 120 pixels"),
    "half label": (
        lambda path: path.write_bytes(path.read_bytes()[:60]),
        "labels",
        "truncated or damaged",
    ),
    "no label": (lambda path: path.unlink(), "labels", "does not exist"),
    "half image": (
        lambda path: path.write_bytes(path.read_bytes()[:500]),
        "images",
        "truncated or damaged",
    ),
    "deep image": (
        lambda path: Image.fromarray(LABELS.astype(np.uint16) * 9).save(path, format="PNG"),
        "images",
        "16 or 32 bits a channel",
    ),
    "resized since": (
        lambda path: write_labels(path, LABELS[:10]),
        "labels",
        "is 30x10 pixels, but its image {root}/images/a.jpg 30x20: give both the same size",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_shows_when_a_file_is_read(tmp_path, name):
    change, folder, essential = BAD[name]
    record = records(tmp_path)[0]
    change(tmp_path / folder / f"a.{'png' if folder == 'labels' else 'jpg'}")
    with pytest.raises(DataError) as caught:
        mapper()(record)
    sentence = caught.value.sentence
    assert sentence.startswith("image a: ") and "\n" not in sentence
    assert essential.format(root=tmp_path) in sentence


def test_headers_that_were_let_pass(tmp_path):
    make_set(tmp_path)
    write_labels(tmp_path / "labels" / "a.png", coloured())
    record = records(tmp_path, max_bad_images=1)[0]
    with pytest.raises(DataError, match=r"image a: .*a\.png is an RGB file.* in 120 pixels"):
        mapper()(record)


class Failing(T.Augmentation):
    def get_transform(self, image):
        raise KeyError("nothing there")


def test_an_augmentation_that_fails(tmp_path):
    with pytest.raises(AugmentationError, match=r"image a: .*KeyError: 'nothing there', 30 x 20"):
        mapper(augmentations=[Failing()])(records(tmp_path)[0])


# ---- through the loaders ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shapes(tmp_path_factory) -> list[dict]:
    root = tmp_path_factory.mktemp("data") / "segments"
    paths = generate_segmentation_dataset(root, 7, 1, image_size=(64, 80))
    arguments = (paths.train_images, paths.train_labels, paths.classes)
    return load_registered_segmentation(register_folder("mapper_shapes", *arguments))


def take(dataset, count, **options) -> list:
    options = {"total_batch_size": 2, "seed": 5, **options}
    loader = build_train_loader(dataset, mapper=mapper(augmentations=published()), **options)
    return list(islice(loader, count))


def assert_same(batches, others) -> None:
    assert len(batches) == len(others) > 0
    for batch, other in zip(batches, others):
        for item, same in zip(batch, other):
            assert item["image_id"] == same["image_id"]
            assert torch.equal(item["image"], same["image"])
            assert torch.equal(item["sem_seg"], same["sem_seg"])


@pytest.mark.parametrize("workers", [1, 3])
def test_the_nth_batch_is_the_same_for_any_number_of_workers(shapes, workers):
    whole = take(shapes, 9)
    assert_same(take(shapes, 9, num_workers=workers), whole)
    images = [item["image"] for batch in whole for item in batch]
    assert len({image.numpy().tobytes() for image in images}) == len(images)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_interrupted_run_goes_on_with_the_batch_it_would_have_had(shapes, workers):
    options = {"total_batch_size": 2, "seed": 99, "num_workers": workers}
    again = build_train_loader(shapes, mapper=mapper(augmentations=published()), **options)
    first = build_train_loader(shapes, mapper=mapper(), total_batch_size=2, seed=5)
    again.resume(first.state_dict(), batches=5)
    assert_same(list(islice(again, 4)), take(shapes, 9)[5:])


def test_the_test_loader(shapes):
    test = build_detection_test_loader(
        dataset=shapes, mapper=mapper(False, [T.ResizeShortestEdge(48, 96)])
    )
    batches = list(test)
    assert [item["image_id"] for (item,) in batches] == [r["image_id"] for r in shapes]
    for (item,), record in zip(batches, shapes):
        assert (item["height"], item["width"]) == (record["height"], record["width"])
        assert min(item["image"].shape[1:]) == 48 and "sem_seg" not in item


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_files_are_left_out_as_far_as_allowed(tmp_path, workers):
    make_set(tmp_path, "abcdef")
    outside(tmp_path / "labels" / "b.png")
    write_labels(tmp_path / "labels" / "e.png", coloured())
    dataset = records(tmp_path, max_bad_images=2)
    batches = take(dataset, 12, max_bad_images=2, num_workers=workers)
    assert {"b", "e"}.isdisjoint({item["image_id"] for batch in batches for item in batch})
    with pytest.raises(DataError) as caught:
        take(dataset, 12, max_bad_images=1, num_workers=workers)
    traceback.clear_frames(caught.tb)
    sentence = caught.value.sentence
    assert sentence.startswith("More than dataloader.train.max_bad_images=1 images are bad")
    assert "out of range" in sentence or "is an RGB file" in sentence


def test_a_turned_picture(tmp_path):
    make_set(tmp_path, ["a"])
    write_picture(tmp_path / "images" / "a.jpg", exif=turned(6))
    write_labels(tmp_path / "labels" / "a.png", LABELS.T.copy())
    mapped = mapper()(records(tmp_path)[0])
    assert mapped["image"].shape == (3, 30, 20) and mapped["sem_seg"].shape == (30, 20)
