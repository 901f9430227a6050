"""Folders of images and label images: what is found, and what is said before training."""

import logging
import uuid
from pathlib import Path

import numpy as np
import pytest
from label_files import (
    LABELS,
    coloured,
    make_set,
    palette_file,
    turned,
    write_labels,
    write_picture,
)

from iwin_d2.d2.config import LazyCall as L
from iwin_d2.d2.config import instantiate
from iwin_d2.d2.data import DatasetCatalog, MetadataCatalog
from iwin_d2.data.semantic_segmentation import load_registered_segmentation, register_folder
from iwin_d2.errors import ConfigError, DataError


def new_name() -> str:
    return f"folder_{uuid.uuid4().hex}"


@pytest.fixture
def files(tmp_path) -> dict[str, str]:
    return make_set(tmp_path)


def load(files, **settings) -> list[dict]:
    return load_registered_segmentation(register_folder(new_name(), **{**files, **settings}))


def refused(files, **settings) -> str:
    """The one sentence with which the loading ends."""
    with pytest.raises(DataError) as caught:
        load(files, **settings)
    sentence = str(caught.value)
    assert "\n" not in sentence and sentence[-1] in ".)"
    return sentence


def test_records_and_metadata(files, tmp_path):
    write_picture(tmp_path / "images" / "c.jpg", (24, 40), exif=turned(1))
    write_labels(tmp_path / "labels" / "c.png", np.zeros((40, 24), dtype=np.uint8))
    (tmp_path / "images" / ".hidden.jpg").write_text("")
    (tmp_path / "images" / "Thumbs.db").write_text("")
    name = new_name()
    register = L(register_folder)(name=name, **files)
    records = load_registered_segmentation(instantiate(register))
    assert [record["image_id"] for record in records] == ["a", "c", "sub/b"]
    assert records[1] == {
        "file_name": str(tmp_path / "images" / "c.jpg"),
        "sem_seg_file_name": str(tmp_path / "labels" / "c.png"),
        "height": 40,
        "width": 24,
        "image_id": "c",
        "num_classes": 5,
    }
    metadata = MetadataCatalog.get(name)
    assert metadata.stuff_classes == [f"class {i}" for i in range(5)]
    assert (metadata.ignore_label, metadata.evaluator_type) == (255, "sem_seg")
    assert (metadata.image_root, metadata.sem_seg_root) == (files["images"], files["labels"])
    assert (metadata.reduce_zero_label, metadata.label_values) == (False, None)


def test_settings_go_into_records_and_metadata(files):
    name = register_folder(
        new_name(), **{**files, "classes": None}, num_classes=4, reduce_zero_label=True,
        ignore_value=9,
    )  # fmt: skip
    for record in load_registered_segmentation(name):
        assert (record["reduce_zero_label"], record["ignore_value"]) == (True, 9)
    metadata = MetadataCatalog.get(name)
    assert metadata.stuff_classes == ["0", "1", "2", "3"]
    assert (metadata.reduce_zero_label, metadata.ignore_label) == (True, 9)


def test_registered_again(files, tmp_path):
    name = register_folder(new_name(), **files)
    assert register_folder(name, **files) == name
    assert register_folder(name, **files, ignore_value=254) == name
    assert MetadataCatalog.get(name).ignore_label == 254
    (tmp_path / "classes.txt").write_text("x\ny\n")  # the file has changed since
    register_folder(name, **files)
    assert MetadataCatalog.get(name).stuff_classes == ["x", "y"]
    other = new_name()
    DatasetCatalog.register(other, list)
    with pytest.raises(DataError, match="already in use by another data set"):
        register_folder(other, **files)


def test_sizes_are_those_of_upright_pictures(tmp_path):
    files = make_set(tmp_path, ["a"])
    write_picture(tmp_path / "images" / "a.jpg", (20, 30), exif=turned(6))
    (record,) = load(files)
    assert (record["width"], record["height"]) == (30, 20)


def test_names_that_end_differently(tmp_path):
    files = make_set(tmp_path, ["x/a_leftImg8bit", "x/b_leftImg8bit"])
    for path in sorted(Path(files["labels"]).rglob("*.png")):
        path.rename(path.with_name(path.name.replace("leftImg8bit", "gtFine_labelIds")))
    endings = {"image_suffix": "_leftImg8bit.jpg", "label_suffix": "_gtFine_labelIds.png"}
    assert [record["image_id"] for record in load(files, **endings)] == ["x/a", "x/b"]


def write_list(folder: Path, names: list[str]) -> str:
    path = folder / "list.txt"
    path.write_text("".join(f"{name}\n" for name in names))
    return str(path)


def test_one_folder_for_both(tmp_path):
    for name in ("a", "b"):
        write_picture(tmp_path / f"{name}.jpg")
        write_labels(tmp_path / f"{name}.png")
    files = {"images": str(tmp_path), "labels": str(tmp_path), "num_classes": 5}
    assert "is the folder of both images and labels: say by image_suffix" in refused(files)
    records = load(files, image_suffix=".jpg", label_suffix=".png")
    assert [record["image_id"] for record in records] == ["a", "b"]


def test_labels_in_a_folder_below_the_images(tmp_path):
    files = make_set(tmp_path)
    (tmp_path / "labels").rename(tmp_path / "images" / "labels")
    files["labels"] = str(tmp_path / "images" / "labels")
    assert [record["image_id"] for record in load(files)] == ["a", "c", "sub/b"]


def test_links_are_followed_but_not_in_circles(files, tmp_path):
    for kind in ("images", "labels"):
        elsewhere = (tmp_path / kind / "sub").rename(tmp_path / f"{kind}_elsewhere")
        (tmp_path / kind / "sub").symlink_to(elsewhere)
        (elsewhere / "back").symlink_to(tmp_path / kind)
    assert [record["image_id"] for record in load(files)] == ["a", "c", "sub/b"]


def test_a_list_of_images(files, tmp_path, caplog):
    listed = write_list(tmp_path, ["sub/b", "a", ""])
    with caplog.at_level(logging.WARNING):
        assert [record["image_id"] for record in load(files, list_file=listed)] == ["a", "sub/b"]
    assert not caplog.records
    listed = write_list(tmp_path, ["a.jpg"])
    assert "a.jpg, which" in (sentence := refused(files, list_file=listed))
    assert "without their suffix" in sentence
    assert "lists a 2 times" in refused(files, list_file=write_list(tmp_path, ["a", "a"]))
    assert "is empty" in refused(files, list_file=write_list(tmp_path, []))
    assert "cannot be read (No such file" in refused(files, list_file=str(tmp_path / "gone"))


def test_a_missing_label(files, tmp_path):
    (tmp_path / "labels" / "sub" / "b.png").unlink()
    sentence = refused(files)
    assert (
        f"{tmp_path}/images/sub/b.jpg has no label image ({tmp_path}/labels/sub/b.png" in sentence
    )
    (tmp_path / "labels" / "a.png").rename(tmp_path / "labels" / "A.png")
    sentence = refused(files)
    assert "A.png, so correct upper and lower case" in sentence
    assert "(1 more problem in the same data set: tools/check_dataset.py IMAGES LABELS" in sentence


def test_a_missing_image_is_a_warning(files, tmp_path, caplog):
    (tmp_path / "images" / "a.jpg").unlink()
    with caplog.at_level(logging.WARNING):
        assert [record["image_id"] for record in load(files)] == ["c", "sub/b"]
    (record,) = caplog.records
    assert "labels/a.png has no image of the same name" in record.message


def test_other_names_altogether(tmp_path):
    files = make_set(tmp_path)
    for path in sorted(Path(files["labels"]).rglob("*.png")):
        path.rename(path.with_stem(f"{path.stem}_mask"))
    sentence = refused(files)
    assert "none of the 3 images" in sentence and "a.jpg" in sentence
    assert "set label_suffix=_mask.png." in sentence
    assert len(load(files, label_suffix="_mask.png")) == 3


def test_nothing_there(files, tmp_path):
    (tmp_path / "empty").mkdir()
    empty, gone = str(tmp_path / "empty"), str(tmp_path / "gone")
    assert "has no images" in refused({**files, "images": empty})
    assert "has no label images" in refused({**files, "labels": empty})
    assert f"the image folder {gone} does not exist" in refused({**files, "images": gone})
    assert f"the label folder {gone} does not exist" in refused({**files, "labels": gone})
    (tmp_path / "empty" / "a.npy").write_text("")
    assert "its files end in .npy" in refused({**files, "images": empty})


def test_two_files_of_one_name(files, tmp_path):
    write_picture(tmp_path / "images" / "a.png")
    sentence = refused(files)
    assert "a.jpg and" in sentence and "differ in their suffix alone" in sentence
    assert len(load(files, image_suffix=".jpg")) == 3


HEADERS = {
    "colours": (lambda path: write_labels(path, coloured()), "is an RGB file"),
    "palette": (palette_file, "is a palette file"),
    "size": (
        lambda path: write_labels(path, LABELS[:, :25]),
        "a.png is 25x20 pixels, but its image {images}/a.jpg 30x20: give both the same size",
    ),
    "swapped": (
        lambda path: write_labels(path, LABELS.T.copy()),
        "20x30 pixels, but its image {images}/a.jpg 30x20, width and height swapped",
    ),
    "text": (lambda path: path.write_text("x"), "is not an image file"),
}


@pytest.mark.parametrize("name", HEADERS)
def test_headers_are_looked_at_before_training(files, tmp_path, name):
    make, essential = HEADERS[name]
    make(tmp_path / "labels" / "a.png")
    assert essential.format(images=files["images"]) in refused(files)
    make(tmp_path / "labels" / "c.png")
    assert "(1 more file like this one: tools/check_dataset.py" in refused(files)
    kept = load_registered_segmentation(register_folder(new_name(), **files), max_bad_images=2)
    assert ["problem" in record for record in kept] == [True, True, False]


@pytest.mark.parametrize("content", [b"", b"no image"])
def test_an_image_whose_header_cannot_be_read(files, tmp_path, content):
    (tmp_path / "images" / "a.jpg").write_bytes(content)
    assert f"{tmp_path}/images/a.jpg is " in refused(files)
    kept = load_registered_segmentation(register_folder(new_name(), **files), max_bad_images=1)
    assert [record["width"] for record in kept] == [1, 30, 30]


def test_labels_of_the_unturned_picture(files, tmp_path, caplog):
    write_picture(tmp_path / "images" / "a.jpg", exif=turned(6))
    sentence = refused(files)
    assert "is 30x20 pixels, but its image" in sentence
    assert "20x30 once its EXIF orientation is applied: turn the labels, or" in sentence
    write_picture(tmp_path / "images" / "a.jpg", exif=turned(3))  # the sizes do not tell
    with caplog.at_level(logging.WARNING):
        assert len(load(files)) == 3
    assert "has an EXIF orientation (3) and is trained the way viewers show it" in caplog.text


def test_settings_that_cannot_be(files):
    with pytest.raises(ConfigError, match="ignore_value=3 is the number of a class"):
        register_folder(new_name(), **files, ignore_value=3)
    with pytest.raises(DataError, match="has 5 names, but num_classes=6"):
        register_folder(new_name(), **files, num_classes=6)


def test_data_sets_are_joined(files, tmp_path):
    other = make_set(tmp_path / "other", ["d"])
    names = [register_folder(new_name(), **each) for each in (files, other)]
    assert len(load_registered_segmentation(names)) == 4
    with pytest.raises(DataError, match="they differ in their classes"):
        more = make_set(tmp_path / "more", classes=6)
        load_registered_segmentation([names[0], register_folder(new_name(), **more)])
    with pytest.raises(DataError, match="no data set is named"):
        load_registered_segmentation([])


def test_what_others_have_registered(files):
    name = new_name()
    record = {"file_name": f"{files['images']}/a.jpg", "image_id": 7}
    DatasetCatalog.register(name, lambda: [dict(record)])
    MetadataCatalog.get(name).set(stuff_classes=list("abcde"), ignore_label=200)
    with pytest.raises(DataError, match="has no label images"):
        load_registered_segmentation(name)
    record["sem_seg_file_name"] = f"{files['labels']}/a.png"
    (found,) = load_registered_segmentation(name)
    extra = {"height": 20, "width": 30, "num_classes": 5, "ignore_value": 200}
    assert found == {**record, **extra}
