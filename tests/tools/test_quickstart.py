"""The quickstart's steps fit together, and (slow) it learns."""

import functools
import sys
from pathlib import Path

import pytest
from PIL import Image

TOOLS = Path(__file__).resolve().parents[2] / "tools"


@pytest.fixture
def quickstart(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    import quickstart

    yield quickstart
    for name in ("quickstart", "lazyconfig_train_net", "visualize"):
        sys.modules.pop(name, None)


def overrides(folder):
    data = folder / "data"
    return [
        f"dataset.train_json={data}/annotations/instances_train.json",
        f"dataset.train_images={data}/train",
        f"dataset.test_json={data}/annotations/instances_val.json",
        f"dataset.test_images={data}/val",
        f"train.output_dir={folder}/output",
    ]


def segmentation_overrides(folder):
    data = folder / "data"
    paths = [
        f"dataset.{split}_{what}={data}/{where}/{name}"
        for split, name in (("train", "training"), ("test", "validation"))
        for what, where in (("images", "images"), ("labels", "annotations"))
    ]
    return [*paths, f"dataset.classes={data}/classes.txt", f"train.output_dir={folder}/output"]


def test_segmentation_from_generating_to_drawing(quickstart, monkeypatch, tmp_path, capsys):
    make = quickstart.generate_segmentation_dataset

    def small(root, num_train, num_val, force=False, **options):
        return make(root, num_train // 100, num_val // 50, force=force, **options)

    monkeypatch.setattr(quickstart, "generate_segmentation_dataset", small)
    short = ["train.max_iter=2", "dataloader.train.num_workers=0", "dataloader.test.num_workers=0"]
    quickstart.main(["segmentation", *segmentation_overrides(tmp_path), *short])
    results, printed = capsys.readouterr().out.split("Where everything lies:")
    assert "mIoU" in results.split("On the held-out images:")[1]
    named = [Path(word.rstrip(",")) for word in printed.split() if str(tmp_path) in word]
    assert len(named) == 7
    assert all(path.exists() for path in named), named
    with Image.open(tmp_path / "output/predictions.png") as picture:
        assert picture.size[0] > 320


def test_from_generating_to_drawing(quickstart, monkeypatch, tmp_path, capsys):
    small = functools.partial(quickstart.generate_shapes_dataset, num_train=4, num_val=2)
    monkeypatch.setattr(quickstart, "generate_shapes_dataset", small)
    short = ["train.max_iter=2", "dataloader.train.num_workers=0", "dataloader.test.num_workers=0"]
    quickstart.main([*overrides(tmp_path), *short, "dataloader.train.total_batch_size=2"])
    printed = capsys.readouterr().out.split("Where everything lies:")[1]
    named = [Path(word.rstrip(",")) for word in printed.split() if str(tmp_path) in word]
    assert len(named) == 7
    assert all(path.exists() for path in named), named
    with Image.open(tmp_path / "output/predictions.png") as picture:
        assert picture.size[0] > 320
    # A second call reuses the data set and overwrites its own results.
    before = (tmp_path / "data/dataset.json").stat().st_mtime_ns
    quickstart.generate(tmp_path / "data", quickstart.generate_shapes_dataset)
    assert (tmp_path / "data/dataset.json").stat().st_mtime_ns == before


def test_an_earlier_version_of_the_data_set_is_replaced(quickstart, monkeypatch, tmp_path):
    quickstart.generate_shapes_dataset(tmp_path / "data", num_train=1, num_val=1)
    small = functools.partial(quickstart.generate_shapes_dataset, num_train=2, num_val=1)
    monkeypatch.setattr(quickstart, "generate_shapes_dataset", small)
    quickstart.generate(tmp_path / "data", quickstart.generate_shapes_dataset)
    assert len(list((tmp_path / "data/train").glob("*.jpg"))) == 2


@pytest.mark.slow
def test_it_learns(quickstart, tmp_path, monkeypatch):
    results = {}
    train = quickstart.lazyconfig_train_net.main

    def keep(argv):
        results.update(train(argv))
        return results

    monkeypatch.setattr(quickstart.lazyconfig_train_net, "main", keep)
    quickstart.main(overrides(tmp_path))
    assert results["bbox"]["AP50"] >= 60
    assert results["segm"]["AP50"] >= 50


@pytest.mark.slow
def test_it_learns_to_segment(quickstart, tmp_path, monkeypatch):
    results = {}
    train = quickstart.lazyconfig_train_net.main

    def keep(argv):
        results.update(train(argv))
        return results

    monkeypatch.setattr(quickstart.lazyconfig_train_net, "main", keep)
    quickstart.main(["segmentation", *segmentation_overrides(tmp_path)])
    assert results["sem_seg"]["mIoU"] >= 60
