"""Predictions read from COCO results files."""

import json
from types import SimpleNamespace

import pytest
import torch

from iwin_d2.d2.data import Metadata
from iwin_d2.d2.structures import Boxes, Instances
from iwin_d2.errors import DataError
from iwin_d2.visualize import check_images, load_results, predict_records


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


def predictor_of(classes):
    """Predicts one object of each class on every image."""
    boxes = Boxes(torch.tensor([[1.0, 2.0, 4.0, 6.0]] * len(classes)))
    scores = torch.full((len(classes),), 0.25)
    found = Instances((9, 9), pred_boxes=boxes, scores=scores, pred_classes=torch.tensor(classes))
    return SimpleNamespace(stream=lambda paths, *_: [{"instances": found} for _ in paths])


def test_predictions_of_a_model_get_the_ids_of_the_data_set():
    records = [{"file_name": "a.png", "image_id": 31}, {"file_name": "b.png", "image_id": 7}]
    metadata = Metadata(name="x", thing_dataset_id_to_contiguous_id={40: 0, 50: 1})
    options = {"batch_size": 1, "workers": 0}
    results = predict_records(predictor_of([1, 0]), records, metadata, **options)
    assert list(results) == [31, 7]
    assert [item["category_id"] for item in results[7]] == [50, 40]
    assert results[31][0]["bbox"] == [1.0, 2.0, 3.0, 4.0]
    with pytest.raises(DataError, match="predicts class 2, but the data set has 2 classes"):
        predict_records(predictor_of([2]), records, metadata, **options)
