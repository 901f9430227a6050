"""Evaluation of segmentation on label files, against slow loops and Detectron2's evaluator."""

import csv
import gc
import json
import math
import weakref

import numpy as np
import pytest
import torch
from PIL import Image
from test_segmentation_metrics import by_loops, random_pairs

from iwin_d2.d2.data import DatasetCatalog, MetadataCatalog
from iwin_d2.d2.evaluation import inference_on_dataset, print_csv_format
from iwin_d2.d2.framework import USE_DETECTRON2
from iwin_d2.data.semantic_segmentation.evaluator import SegmentationEvaluator
from iwin_d2.data.semantic_segmentation.labels import read_record_label
from iwin_d2.errors import ConfigError, DataError

NAME = "segmentation_evaluator_test"
CLASSES = ["sky", "tree", "road", "car"]


@pytest.fixture
def register():
    """Registers records as a data set of a name; forgets it in the end."""

    def make(records, classes=CLASSES, **metadata):
        unregister()
        DatasetCatalog.register(NAME, lambda: records)
        MetadataCatalog.get(NAME).set(stuff_classes=classes, **metadata)
        return NAME

    def unregister():
        if NAME in DatasetCatalog:
            DatasetCatalog.remove(NAME)
            MetadataCatalog.remove(NAME)

    yield make
    unregister()


def write(folder, pairs, **more):
    """Label files of the truth; records of them."""
    records = []
    for number, (truth, _) in enumerate(pairs):
        path = folder / f"{number}.png"
        Image.fromarray(truth).save(path)
        records.append(
            {
                "file_name": str(folder / f"{number}.jpg"),
                "sem_seg_file_name": str(path),
                "image_id": f"street/{number}",
                "height": truth.shape[0],
                "width": truth.shape[1],
                **more,
            }
        )
    return records


def as_labels(predicted):
    return {"sem_seg_labels": torch.from_numpy(predicted)}


def as_scores(predicted):
    """Scores whose largest is that of the class."""
    scores = torch.rand(len(CLASSES), *predicted.shape)
    scores.scatter_(0, torch.from_numpy(predicted)[None].long(), 2.0)
    return {"sem_seg": scores}


def evaluate(name, records, outputs, **options):
    evaluator = SegmentationEvaluator(name, **options)
    evaluator.reset()
    for record, output in zip(records, outputs):
        evaluator.process([record], [output])
    return evaluator.evaluate()


@pytest.fixture
def pairs():
    return random_pairs(np.random.default_rng(7), len(CLASSES), 255, absent=(3,))


@pytest.mark.parametrize("as_output", [as_labels, as_scores])
def test_results_are_those_of_loops_over_pixels(tmp_path, register, pairs, as_output):
    records = write(tmp_path, pairs)
    outputs = [as_output(predicted) for _, predicted in pairs]
    results = evaluate(register(records), records, outputs)
    expected = by_loops(pairs, len(CLASSES), 255)
    for number, name in enumerate(CLASSES):
        for kind in ("IoU", "ACC"):
            expected[f"{kind}-{name}"] = expected.pop(f"{kind}-{number}")
    assert list(results) == ["sem_seg"]
    assert results["sem_seg"] == pytest.approx(expected, nan_ok=True, rel=1e-12)
    assert 20 < results["sem_seg"]["mIoU"] < 90
    assert math.isnan(results["sem_seg"]["IoU-car"])
    print_csv_format(results)


def test_all_images_of_a_batch_count(tmp_path, register, pairs):
    records = write(tmp_path, pairs)
    evaluator = SegmentationEvaluator(register(records))
    one_by_one = evaluate(NAME, records, [as_labels(p) for _, p in pairs])["sem_seg"]
    evaluator.process(records, [as_labels(p) for _, p in pairs])
    assert evaluator.evaluate()["sem_seg"] == pytest.approx(one_by_one, nan_ok=True)
    evaluator.reset()
    assert evaluator.evaluate() == {}


@pytest.mark.skipif(not USE_DETECTRON2, reason="its evaluator exists in Detectron2 alone")
@pytest.mark.parametrize("only_predicted", [(), (2,)])
def test_results_are_those_of_detectron2(tmp_path, register, only_predicted):
    """Their means leave out classes that are predicted but not there, ours count them as 0."""
    from detectron2.evaluation import SemSegEvaluator

    options = {"absent": (3,), "only_predicted": only_predicted}
    pairs = random_pairs(np.random.default_rng(3), len(CLASSES), 255, **options)
    records = write(tmp_path, pairs)
    name = register(records, ignore_label=255)
    outputs = [as_scores(predicted) for _, predicted in pairs]
    theirs = SemSegEvaluator(name, distributed=False, output_dir=str(tmp_path / "theirs"))
    theirs.reset()
    theirs.process(records, outputs)
    expected = theirs.evaluate()["sem_seg"]
    found = evaluate(name, records, outputs)["sem_seg"]
    assert found.keys() <= expected.keys()
    if only_predicted:
        mean = [found[f"IoU-{name}"] for name in ("sky", "tree")]
        assert expected["mIoU"] == pytest.approx(sum(mean) / 2)
        assert found["mIoU"] == pytest.approx(sum(mean) / 3)
        del found["mIoU"], found["IoU-road"]
    for key in found:
        assert found[key] == pytest.approx(expected[key], nan_ok=True, rel=1e-9), key


def read_csv(path):
    with open(path, newline="") as file:
        return list(csv.reader(file))


def test_what_is_written(tmp_path, register, pairs):
    records = write(tmp_path, pairs)
    folder = tmp_path / "out"
    outputs = [as_labels(predicted) for _, predicted in pairs]
    results = evaluate(register(records), records, outputs, output_dir=str(folder))["sem_seg"]
    names = {path.name for path in folder.iterdir()}
    assert names == {"results.json", "per_class.csv", "confusion.csv", "confusion.png"}

    pixels = sum(truth.size for truth, _ in pairs)
    ignored = sum(int((truth == 255).sum()) for truth, _ in pairs)
    saved = json.loads((folder / "results.json").read_text())
    assert saved["sem_seg"].pop("IoU-car") is saved["sem_seg"].pop("ACC-car") is None
    assert saved["sem_seg"] == {k: v for k, v in results.items() if not k.endswith("-car")}
    del saved["sem_seg"]
    counts = {"images": 3, "pixels": pixels - ignored, "ignored_pixels": ignored}
    assert saved == {"data_set": NAME, **counts}

    head, *rows = read_csv(folder / "confusion.csv")
    assert head == ["truth \\ predicted", *CLASSES] and [row[0] for row in rows] == CLASSES
    for number, row in enumerate(rows):
        for other, cell in enumerate(row[1:]):
            both = sum(int(((t == number) & (p == other)).sum()) for t, p in pairs)
            assert int(cell) == both

    head, *rows = read_csv(folder / "per_class.csv")
    assert head == ["number", "class", "IoU", "ACC", "pixels", "predicted pixels"]
    assert [row[:2] for row in rows] == [[str(n), name] for n, name in enumerate(CLASSES)]
    assert rows[3][2:] == ["", "", "0", "0"]
    assert float(rows[1][2]) == pytest.approx(results["IoU-tree"], abs=1e-4)
    assert float(rows[1][3]) == pytest.approx(results["ACC-tree"], abs=1e-4)
    counted = [(t[t != 255], p[t != 255]) for t, p in pairs]
    assert int(rows[1][4]) == sum(int((t == 1).sum()) for t, _ in counted)
    assert int(rows[1][5]) == sum(int((p == 1).sum()) for _, p in counted)
    with Image.open(folder / "confusion.png") as picture:
        assert picture.format == "PNG" and min(picture.size) > 200


FORMATS = {
    "plain": ({}, [0, 1, 2, 3]),
    "reduce_zero_label": ({"reduce_zero_label": True}, [1, 2, 3, 4]),
    "label_values": (
        {"label_values": {7: 0, 8: 1, 11: 2, 26: 3, 27: 3, 0: 255}},
        [7, 8, 11, 26],
    ),
    "16 bits": ({"label_values": {700: 0, 8: 1, 11: 2, 26: 3}}, [700, 8, 11, 26]),
}


@pytest.mark.parametrize("name", FORMATS)
def test_predictions_are_written_as_the_label_files_are(tmp_path, register, pairs, name):
    """Evaluated against themselves they are right everywhere."""
    more, values = FORMATS[name]
    more = {"num_classes": len(CLASSES), **more}
    table = np.zeros(256, dtype=np.uint16 if max(values) > 255 else np.uint8)
    table[: len(values)], table[255] = values, 255
    records = write(tmp_path, [(table[truth], None) for truth, _ in pairs], **more)
    outputs = [as_labels(predicted) for _, predicted in pairs]
    options = {"output_dir": str(tmp_path / "out"), "save_labels": True}
    plain = evaluate(register(records), records, outputs, **options)["sem_seg"]
    assert plain["pACC"] == pytest.approx(by_loops(pairs, len(CLASSES), 255)["pACC"])

    for record, (_, predicted) in zip(records, pairs):
        path = tmp_path / "out/labels" / f"{record['image_id']}.png"
        with Image.open(path) as image:
            assert np.array_equal(np.asarray(image), table[predicted])
        record["sem_seg_file_name"] = str(path)
        assert np.array_equal(read_record_label(record), predicted)
    assert evaluate(NAME, records, outputs)["sem_seg"]["mIoU"] == 100


def test_images_without_an_id_of_text_give_label_files_of_their_name(tmp_path, register, pairs):
    records = write(tmp_path, pairs)
    records[0]["image_id"] = 12
    del records[1]["image_id"]
    records[2]["image_id"] = records[2]["file_name"]
    outputs = [as_labels(predicted) for _, predicted in pairs]
    folder = tmp_path / "out"
    evaluate(register(records), records, outputs, output_dir=str(folder), save_labels=True)
    assert {path.name for path in (folder / "labels").iterdir()} == {"0.png", "1.png", "2.png"}


def test_label_files_stay_in_their_folder(tmp_path, register, pairs):
    records = write(tmp_path, pairs[:1])
    records[0]["image_id"] = "../../x"
    folder = tmp_path / "out"
    outputs = [as_labels(pairs[0][1])]
    evaluate(register(records), records, outputs, output_dir=str(folder), save_labels=True)
    assert [path.name for path in (folder / "labels").iterdir()] == ["x.png"]


def test_predictions_are_not_kept(tmp_path, register, pairs):
    records = write(tmp_path, pairs)
    evaluator = SegmentationEvaluator(register(records), output_dir=str(tmp_path))
    output = as_scores(pairs[0][1])
    kept = weakref.ref(output["sem_seg"])
    evaluator.process(records[:1], [output])
    del output
    gc.collect()
    assert kept() is None
    assert evaluator.evaluate()["sem_seg"]["mIoU"] > 0


def test_a_mapper_may_leave_out_the_label_file(tmp_path, register, pairs):
    """As Detectron2's DatasetMapper does when it does not train."""
    records = write(tmp_path, pairs, reduce_zero_label=True, num_classes=3)
    inputs = [{"file_name": record["file_name"]} for record in records]
    name = register(records, CLASSES[:3])
    outputs = [as_labels(np.maximum(predicted - 1, 0)) for _, predicted in pairs]
    found, expected = (evaluate(name, items, outputs)["sem_seg"] for items in (inputs, records))
    assert found == pytest.approx(expected, nan_ok=True)
    with pytest.raises(DataError, match=r"Image other\.jpg has no label image in data set"):
        evaluate(name, [{"file_name": "other.jpg"}], outputs)


def test_the_ignore_value_may_be_the_metadata_s(tmp_path, register):
    truth = np.array([[0, 1, 9, 9]], dtype=np.uint8)
    records = write(tmp_path, [(truth, None)])
    name = register(records, CLASSES[:2], ignore_label=9)
    predicted = np.array([[0, 0, 1, 1]], dtype=np.int32)
    found = evaluate(name, records, [as_labels(predicted)])["sem_seg"]
    assert found["pACC"] == 50 and found["IoU-sky"] == 50 and found["IoU-tree"] == 0


def test_classes_are_known_after_loading_at_the_latest(tmp_path, register, pairs):
    records = write(tmp_path, pairs)
    register(records, [])

    def load():
        MetadataCatalog.get(NAME).stuff_classes = CLASSES
        return records

    DatasetCatalog.remove(NAME)
    MetadataCatalog.remove(NAME)
    DatasetCatalog.register(NAME, load)
    assert evaluate(NAME, records, [as_labels(p) for _, p in pairs])["sem_seg"]["mIoU"] > 0


def test_where_every_pixel_is_ignored_nothing_can_be_measured(tmp_path, register, caplog):
    truth = np.full((4, 5), 255, dtype=np.uint8)
    records = write(tmp_path, [(truth, None)])
    folder = tmp_path / "out"
    outputs = [as_labels(np.zeros((4, 5), dtype=np.int32))]
    with caplog.at_level("WARNING", logger="iwin_d2.data"):
        results = evaluate(register(records), records, outputs, output_dir=str(folder))
    assert all(map(math.isnan, results["sem_seg"].values()))
    assert "All pixels of the 1 label images" in caplog.text and "reduce_zero_label" in caplog.text
    saved = json.loads((folder / "results.json").read_text())
    assert set(saved["sem_seg"].values()) == {None}
    assert saved["ignored_pixels"] == 20 and saved["pixels"] == 0
    assert (folder / "confusion.png").exists()


def test_without_an_image_there_are_no_results(register, caplog):
    class Model(torch.nn.Module):
        def forward(self, batch):
            raise AssertionError("there is no batch")

    evaluator = SegmentationEvaluator(register([]))
    with caplog.at_level("WARNING", logger="iwin_d2.data"):
        assert evaluator.evaluate() == {}
    assert "No image was evaluated" in caplog.text
    if not USE_DETECTRON2:  # Detectron2's asks for at least one batch
        assert inference_on_dataset(Model(), [], evaluator) == {}


def test_one_sentence_for_labels_that_do_not_fit(tmp_path, register, pairs):
    records = write(tmp_path, pairs)
    name = register(records)
    outputs = [as_labels(predicted) for _, predicted in pairs]
    message = r"0\.png has 17 x 13 pixels, but its image .*0\.jpg was predicted at 13 x 17"
    with pytest.raises(DataError, match=message):
        evaluate(name, records, [as_labels(pairs[0][1].T.copy())])
    message = r"predicts class 4, but data set .* has 4 classes: set model\.sem_seg_head\.num_cl"
    with pytest.raises(ConfigError, match=message):
        evaluate(name, records, [as_labels(pairs[0][1] + 2)])
    (tmp_path / "1.png").unlink()
    with pytest.raises(DataError, match=r"1\.png does not exist"):
        evaluate(name, records, outputs)
    with pytest.raises(ConfigError, match="'instances', where a semantic segmenter"):
        evaluate(name, records, [{"instances": None}])
    records[0]["num_classes"] = 2
    with pytest.raises(DataError, match=r"0\.png has (a label|labels) out of range: 2 in"):
        evaluate(name, records, outputs)


def test_one_sentence_for_settings_that_make_no_sense(register):
    name = register([])
    with pytest.raises(ConfigError, match="one data set, not"):
        SegmentationEvaluator([name])
    with pytest.raises(ConfigError, match="save_labels=True wants a folder"):
        SegmentationEvaluator(name, save_labels=True)
    with pytest.raises(DataError, match="does not say its classes: set stuff_classes"):
        SegmentationEvaluator(register([], []))
