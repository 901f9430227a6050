"""Predictions read from COCO results files."""

import json

import pytest

from iwin_d2.errors import DataError
from iwin_d2.visualize import check_images, load_results


def prediction(image_id: int, **change) -> dict:
    box = {"bbox": [5, 5, 20, 20], "category_id": 9, "score": 0.9}
    return {"image_id": image_id, **box, **change}


def test_results_are_grouped_by_image(tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps([prediction(4), prediction(1), prediction(4)]))
    results = load_results(path)
    assert {image: len(items) for image, items in results.items()} == {4: 2, 1: 1}


@pytest.mark.parametrize("text", ["{}", "[1]", '[{"image_id": 1}]'])
def test_what_is_not_a_results_file(tmp_path, text):
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(DataError, match="results format"):
        load_results(path)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"bbox": [1, 2, 3]}, "no bbox of four numbers"),
        ({"bbox": None}, "no bbox of four numbers"),
        ({"bbox": [1, 2, "3", 4]}, "no bbox of four numbers"),
        ({"score": "high"}, "no number as its score"),
        ({"bbox": [1, 2, 3, float("nan")]}, "not finite"),
        ({"category_id": "3"}, "no whole numbers as image_id and category_id"),
        ({"segmentation": {"size": [40, 50], "counts": "PP!"}}, "a damaged mask"),
        ({"segmentation": {"size": [40, 50], "counts": "5"}}, "a damaged mask"),
    ],
)
def test_results_that_cannot_be_drawn_are_named(tmp_path, values, sentence):
    path = tmp_path / "results.json"
    path.write_text(json.dumps([prediction(4), {**prediction(7), **values}]))
    with pytest.raises(DataError, match=rf"json: result number 2 \(image 7\) has .*{sentence}"):
        load_results(path)


def test_a_missing_results_file(tmp_path):
    with pytest.raises(DataError, match=r"results file .*gone\.json does not exist"):
        load_results(tmp_path / "gone.json")


def test_results_of_other_images_are_named():
    records = [{"image_id": 4}, {"image_id": 5}]
    check_images({4: []}, records, "results.json", "nuts")
    with pytest.raises(DataError, match=r"for image 7 \(and 1 more images\).*'nuts' does not have"):
        check_images({4: [], 9: [], 7: []}, records, "results.json", "nuts")
