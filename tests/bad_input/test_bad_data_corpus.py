"""Bad data sets: each ends a training before its first step, in one sentence."""

import json
import math
import shutil

import pytest
from bad_input import Coco, assert_says


def text(content: str):
    """Replace the whole training json."""
    return lambda data: data.train_json.write_text(content)


def encoded(encoding: str):
    return lambda data: data.train_json.write_bytes(
        data.train_json.read_text().replace("cat", "chât").encode(encoding)
    )


def rewrite(make):
    """Make another training json of the parsed one."""
    return lambda data: data.train_json.write_text(
        json.dumps(make(json.loads(data.train_json.read_text())))
    )


def edit(change):
    """Change the parsed training json."""
    return lambda data: data.edit(change)


def edit_test(change):
    return lambda data: data.edit(change, data.test_json)


def annotation(**values):
    """Other values for the first annotation."""
    return edit(lambda content: content["annotations"][0].update(values))


def annotations(**values):
    """Other values for all annotations."""
    return edit(lambda content: [item.update(values) for item in content["annotations"]])


def image(**values):
    return edit(lambda content: content["images"][0].update(values))


def category(**values):
    """Other values for the second category."""
    return edit(lambda content: content["categories"][1].update(values))


def without(section: str, key: str):
    """Take a key from the first record of a section."""
    return edit(lambda content: content[section][0].pop(key))


def cut(data: Coco) -> None:
    content = data.train_json.read_bytes()
    data.train_json.write_bytes(content[: len(content) // 2])


def folder_for_json(data: Coco) -> None:
    data.train_json.unlink()
    data.train_json.mkdir()


def results(content: dict) -> list[dict]:
    return [{**item, "score": 0.5} for item in content["annotations"]]


def endless_number(data: Coco) -> None:
    content = data.train_json.read_text()
    data.train_json.write_text(content.replace('"width": 64', '"width": ' + 5000 * "6", 1))


def other_class_in_test(content: dict) -> None:
    content["categories"][1]["name"] = "cow"


def class_missing_in_test(content: dict) -> None:
    del content["categories"][1], content["annotations"][1]


FIRST = "{json}: annotation 1 (image 1, 1.jpg)"
RLE = {"size": [48, 64], "counts": [0, 48 * 64]}


def rle(**values):
    return annotation(segmentation={**RLE, **values})


# What is done to the data set, and what must be said of it: what, where, and what to do.
CASES = {
    # the file
    "no json": (lambda data: data.train_json.unlink(), ("{json} does not exist", "check the path")),
    "folder for json": (folder_for_json, ("{json} cannot be read", "Is a directory")),
    "empty json": (text(" \n"), ("{json} is empty",)),
    "not json": (text("not json"), ("{json} is not json", "line 1", "column 1")),
    "photo for json": (
        lambda data: shutil.copy(data.first_image, data.train_json),
        ("{json} is not json", "not UTF-8", "right file"),
    ),
    "utf-16": (encoded("utf-16"), ("{json} is not json", "byte 0", "save it as UTF-8")),
    "latin-1": (encoded("latin-1"), ("{json} is not json", "save it as UTF-8")),
    "byte order mark": (encoded("utf-8-sig"), ("{json}", "byte order mark", "without BOM")),
    "cut": (cut, ("{json} is not json", "line 1", "was it copied completely?")),
    "nested": (text("[" * 10**5), ("{json} is not COCO", "nests too deeply")),
    "endless number": (endless_number, ("{json} is not COCO", "digits")),
    # another kind of file
    "results": (rewrite(results), ("{json} is not a COCO data set", "a list", "results file")),
    "a number": (text("3"), ("{json} is not a COCO data set", "a number instead of an object")),
    "null": (text("null"), ("{json} is not a COCO data set", "nothing instead of an object")),
    "labelme": (
        text('{"version": "5.0", "shapes": [{"label": "cat"}], "imagePath": "1.jpg"}'),
        ("{json} is not a COCO data set", "no list of 'categories'"),
    ),
    "no images": (edit(lambda c: c.pop("images")), ("{json}", "the key 'images' is missing")),
    "no annotations": (
        edit(lambda c: c.pop("annotations")),
        ("{json}", "'annotations' is missing"),
    ),
    "no categories": (edit(lambda c: c.pop("categories")), ("{json}", "no list of 'categories'")),
    "images as dict": (edit(lambda c: c.update(images={})), ("{json}", "'images' holds an object")),
    "annotations as text": (
        edit(lambda c: c.update(annotations="none")),
        ("{json}", "'annotations' holds a text instead of a list"),
    ),
    # nothing in it
    "empty images": (edit(lambda c: c.update(images=[])), ("{json} has no images",)),
    "empty annotations": (
        edit(lambda c: c.update(annotations=[])),
        ("{json} has 2 images but not one annotation",),
    ),
    "empty categories": (edit(lambda c: c.update(categories=[])), ("{json}", "'categories'")),
    "only crowds": (
        annotations(iscrowd=1, segmentation=RLE),
        ("{json} has crowd annotations only", "no object to learn from"),
    ),
    # ids
    "image id twice": (
        edit(lambda c: c["images"][1].update(id=1)),
        ("{json}: image 1 (2.jpg)", "earlier image, 1.jpg", "must be unique"),
    ),
    "annotation id twice": (
        edit(lambda c: c["annotations"][1].update(id=1)),
        (FIRST, "id of an earlier annotation", "must be unique"),
    ),
    "category id twice": (category(id=1), ("{json}: category number 2", "id 1 of an earlier")),
    "unknown category": (
        annotation(category_id=7),
        (FIRST, "category_id 7, which is not among", "ids 1 to 2", "correct the annotation"),
    ),
    "unknown image": (
        annotation(image_id=77),
        ("{json}: annotation 1 (image 77)", "image that is not listed", "add the image or drop it"),
    ),
    "image ids as text": (
        annotations(image_id="1"),
        ("{json}: annotation 1 (image '1')", "needs whole numbers", "check_dataset.py"),
    ),
    "annotation id as float": (annotation(id=1.0), ("annotation 1.0", "needs whole numbers")),
    "category ids as text": (
        edit(lambda c: [item.update(id=str(item["id"])) for item in c["categories"]]),
        ("{json}: category number 1 has the id '1'", "whole numbers"),
    ),
    "category ids of two kinds": (category(id="2"), ("{json}: category number 2 has the id '2'",)),
    "id true": (annotation(category_id=True), (FIRST, "needs whole numbers")),
    # records
    "category without name": (
        without("categories", "name"),
        ("{json}: category number 1 needs the keys id and name",),
    ),
    "category names alone": (
        edit(lambda c: c.update(categories=["cat", "dog"])),
        ("{json}: category number 1 needs the keys id and name",),
    ),
    "category name as number": (category(name=7), ("{json}: category number 2", "needs a text")),
    "image without file name": (
        without("images", "file_name"),
        ("{json}: image number 1 needs the keys id, file_name, width and height",),
    ),
    "image without width": (without("images", "width"), ("{json}: image 1 (1.jpg)", "width None")),
    "width as text": (
        image(width="64"),
        ("{json}: image 1 (1.jpg)", "width '64'", "whole numbers"),
    ),
    "width zero": (image(width=0), ("{json}: image 1 (1.jpg)", "width 0", "above 0")),
    "image is a number": (
        edit(lambda c: c["images"].append(3)),
        ("{json}: image number 3 needs the keys",),
    ),
    "annotation is a list": (
        edit(lambda c: c["annotations"].append([1])),
        ("{json}: annotation number 5 needs the keys",),
    ),
    # image files
    "image missing": (
        lambda data: data.first_image.unlink(),
        ("{json}: image 1: {images}/1.jpg does not exist", "check the image folder"),
    ),
    "all images missing": (
        lambda data: [path.unlink() for path in data.train_images.iterdir()],
        ("{json}: image 1: {images}/1.jpg does not exist", "1 more problem", "check_dataset.py"),
    ),
    "other case": (
        lambda data: data.first_image.rename(data.train_images / "1.JPG"),
        ("{images}/1.jpg does not exist", "1.JPG", "upper and lower case"),
    ),
    "folder missing": (
        lambda data: shutil.rmtree(data.train_images),
        ("image folder {images} of {json} does not exist", "check the path"),
    ),
    # boxes
    "box nan": (annotation(bbox=[math.nan, 1, 2, 3]), (FIRST, "[nan, 1, 2, 3]", "finite")),
    "box infinite": (annotation(bbox=[1, 1, math.inf, 3]), (FIRST, "inf", "finite")),
    "box negative": (
        annotation(bbox=[30, 10, -5, 3]),
        (FIRST, "[30, 10, -5, 3] of negative size", "x, y, width, height"),
    ),
    "box of three": (annotation(bbox=[1, 2, 3]), (FIRST, "[1, 2, 3]", "four numbers")),
    "box of texts": (annotation(bbox=["1", "2", "3", "4"]), (FIRST, "four numbers")),
    "box null": (annotation(bbox=None), (FIRST, "bbox None", "four numbers")),
    "box missing": (without("annotations", "bbox"), (FIRST, "has no bbox")),
    # masks
    "polygon odd": (
        annotation(segmentation=[[1, 1, 5, 1, 5, 5, 1]]),
        (FIRST, "polygon of 7 numbers", "at least 3 points"),
    ),
    "polygon short": (annotation(segmentation=[[1, 1, 5, 1]]), (FIRST, "polygon of 4 numbers")),
    "polygon flat": (
        annotation(segmentation=[1, 1, 5, 1, 5, 5]),
        (FIRST, "not a list of polygons"),
    ),
    "polygon of texts": (
        annotation(segmentation=[["1", 1, 5, 1, 5, 5]]),
        (FIRST, "coordinates are not all finite numbers"),
    ),
    "polygon nan": (annotation(segmentation=[[math.nan, 1, 5, 1, 5, 5]]), (FIRST, "finite")),
    "polygon elsewhere": (
        annotation(segmentation=[[1e9, 1, 5, 1, 5, 5]]),
        (FIRST, "no coordinates of this image"),
    ),
    "segmentation text": (annotation(segmentation="all"), (FIRST, "neither polygons nor RLE")),
    "rle size": (rle(size=[64, 48]), (FIRST, "size [64, 48]", "[height, width] = [48, 64]")),
    "rle sum": (rle(counts=[0, 5]), (FIRST, "5 pixels together", "48x64 = 3072")),
    "rle negative": (rle(counts=[-5, 48 * 64 + 5]), (FIRST, "not all whole numbers from 0 up")),
    "rle garbage": (rle(counts="PPPPPP!"), (FIRST, "damaged: they do not decode")),
    "rle without counts": (annotation(segmentation={"size": [48, 64]}), (FIRST, "without counts")),
    "rle for polygons": (
        annotation(segmentation=RLE),
        ("{images}/1.jpg has masks in RLE", "set dataloader.train.mapper.instance_mask_format"),
    ),
    "no masks": (
        edit(lambda c: [item.pop("segmentation") for item in c["annotations"]]),
        ("{images}/1.jpg is to train masks", "custom_coco_boxes.py", "1 more"),
    ),
    "one mask missing": (
        without("annotations", "segmentation"),
        ("{images}/1.jpg is to train masks", "some of its objects", "custom_coco_boxes.py"),
    ),
    # the rest
    "crowd text": (annotation(iscrowd="no"), (FIRST, "iscrowd 'no'", "0 for a single object")),
    "ignored": (annotation(ignore=1), (FIRST, "marked 'ignore'", "set iscrowd to 1")),
    # the test set, which is needed only after the training
    "other class in test": (
        edit_test(other_class_in_test),
        ("{json} and {test} do not have the same categories", "lacks 'dog'", "give both files"),
    ),
    "class missing in test": (
        edit_test(class_missing_in_test),
        ("{json} and {test} do not have the same categories", "lacks 'dog'"),
    ),
    "no test json": (lambda data: data.test_json.unlink(), ("{test} does not exist", "check the")),
    "test json cut": (
        lambda data: data.test_json.write_text("{"),
        ("{test} is not json", "line 1"),
    ),
    "no test objects": (
        edit_test(lambda c: c.update(annotations=[])),
        ("{test} has 1 images but not one annotation",),
    ),
    "no test image": (
        lambda data: (data.test_images / "1.jpg").unlink(),
        ("{test}: image 1: {test_images}/1.jpg does not exist",),
    ),
    "test box nan": (
        edit_test(lambda c: c["annotations"][1].update(bbox=[math.nan] * 4)),
        ("{test}: annotation 2 (image 1, 1.jpg)", "finite"),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_bad_data_set(data, train_badly, name):
    change, essentials = CASES[name]
    change(data)
    places = {"json": data.train_json, "images": data.train_images}
    places.update(test=data.test_json, test_images=data.test_images)
    assert_says(train_badly(), essentials, **places)


def both_names_equal(data: Coco) -> None:
    for json_file in (data.train_json, data.test_json):
        data.edit(lambda content: content["categories"][1].update(name="cat"), json_file)


def ids_from_afar(data: Coco) -> None:
    def change(content):
        for item in content["categories"]:
            item["id"] = item["id"] * 10**12
        for item in content["annotations"]:
            item["category_id"] = item["category_id"] * 10**12

    for json_file in (data.train_json, data.test_json):
        data.edit(change, json_file)


def image_without_objects(content: dict) -> None:
    del content["annotations"][:2]


def train_and_test_on_the_same(data: Coco) -> None:
    shutil.copy(data.train_json, data.test_json)
    shutil.copytree(data.train_images, data.test_images, dirs_exist_ok=True)


# What is odd, but can be trained on; and what the log must say of it, if anything.
ODD = {
    "box of no size": (annotation(bbox=[10, 10, 0, 3]), "[10, 10, 0, 3] without area"),
    "box of two corners": (annotation(bbox=[40, 30, 60, 40]), "reaching out of its image of 64x48"),
    "box outside": (annotation(bbox=[100, 100, 5, 5]), "outside its image of 64x48"),
    "area missing": (without("annotations", "area"), "has no area"),
    "area nan": (annotation(area=math.nan), "has the area nan"),
    "iscrowd missing": (without("annotations", "iscrowd"), "has no iscrowd"),
    "one crowd": (annotation(iscrowd=1, segmentation=RLE), None),
    "category name twice": (both_names_equal, "has the name 'cat' of category 1"),
    "image file twice": (
        edit(lambda c: c["images"][1].update(file_name="1.jpg")),
        "is the file of image 1, too",
    ),
    "huge category ids": (ids_from_afar, None),
    "image without objects": (edit(image_without_objects), None),
    "the same data for both": (train_and_test_on_the_same, None),
    "annotation id 0": (annotation(id=0), None),
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_data_set_is_trained_on(data, train_well, name):
    change, warning = ODD[name]
    change(data)
    log = train_well()
    # The toy's own, and of a model that detects nothing.
    expected = ("No parameter name", "predicted nothing", "No predictions", "requires_grad")
    warnings = [line for line in log.splitlines() if "WRN" in line or "WARNING" in line]
    warnings = [line for line in warnings if not any(known in line for known in expected)]
    if warning is None:
        assert not warnings
    else:
        assert any(warning in line and str(data.train_json) in line for line in warnings), warnings
