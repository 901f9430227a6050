"""Mapper, samplers and loaders on real image files."""

import itertools
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from iwin_d2.d2.data import (
    AspectRatioGroupedDataset,
    DatasetCatalog,
    DatasetFromList,
    DatasetMapper,
    MapDataset,
    MetadataCatalog,
    build_detection_test_loader,
    build_detection_train_loader,
    get_detection_dataset_dicts,
)
from iwin_d2.d2.data import transforms as T
from iwin_d2.d2.data.samplers import (
    InferenceSampler,
    TrainingSampler,
)
from iwin_d2.d2.framework import USE_DETECTRON2
from iwin_d2.d2.structures import BitMasks, BoxMode
from iwin_d2.errors import DataError

native_only = pytest.mark.skipif(USE_DETECTRON2, reason="the errors of native")

SIZES = [(24, 32), (32, 24), (24, 40), (20, 36), (36, 20), (30, 31)]


def annotation(x, y, w, h, category_id=0, iscrowd=0):
    polygon = [x, y, x + w, y, x + w, y + h, x, y + h]
    return {
        "bbox": [x, y, w, h],
        "bbox_mode": BoxMode.XYWH_ABS,
        "category_id": category_id,
        "iscrowd": iscrowd,
        "segmentation": [polygon],
    }


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Six images whose pixels are the image's number, with two objects each."""
    folder = tmp_path_factory.mktemp("images")
    made = []
    for number, (height, width) in enumerate(SIZES):
        path = str(folder / f"{number}.png")
        Image.fromarray(np.full((height, width, 3), number, dtype=np.uint8)).save(path)
        annotations = [annotation(2, 3, 8, 6), annotation(10, 4, 5, 9, category_id=1)]
        made.append(
            {
                "file_name": path,
                "height": height,
                "width": width,
                "image_id": number,
                "annotations": annotations,
            }
        )
    return made


@pytest.fixture
def register():
    names = []

    def do(name, records, classes=("a", "b")):
        DatasetCatalog.register(name, lambda: records)
        MetadataCatalog.get(name).set(thing_classes=list(classes))
        names.append(name)
        return name

    yield do
    for name in names:
        DatasetCatalog.pop(name)
        MetadataCatalog.pop(name)


def mapper(is_train=True, **options):
    options = {"augmentations": [], "image_format": "RGB", "use_instance_mask": True, **options}
    return DatasetMapper(is_train, **options)


def test_mapper_in_training(records):
    record = records[0]
    before = pickle.dumps(record)
    made = mapper(augmentations=[T.Resize((48, 64)), T.HFlipTransform(64)])(record)
    assert pickle.dumps(record) == before
    assert made["image"].dtype == torch.uint8 and made["image"].shape == (3, 48, 64)
    assert made["image"].is_contiguous() and "annotations" not in made
    assert (made["height"], made["width"], made["image_id"]) == (24, 32, 0)
    instances = made["instances"]
    assert instances.image_size == (48, 64)
    assert instances.gt_boxes.tensor.tolist() == [[44, 6, 60, 18], [34, 8, 44, 26]]
    assert instances.gt_classes.tolist() == [0, 1]
    assert torch.equal(instances.gt_masks.get_bounding_boxes().tensor, instances.gt_boxes.tensor)


def test_mapper_in_inference(records):
    made = mapper(False, augmentations=[T.Resize((48, 64))])(records[0])
    assert set(made) == {"file_name", "height", "width", "image_id", "image"}
    assert made["image"].shape == (3, 48, 64)


def test_mapper_options(records):
    record = records[0]
    assert not mapper(use_instance_mask=False)(record)["instances"].has("gt_masks")
    bitmasks = mapper(instance_mask_format="bitmask")(record)["instances"].gt_masks
    assert isinstance(bitmasks, BitMasks) and bitmasks.tensor.flatten(1).sum(1).tolist() == [48, 45]
    assert mapper(image_format="L")(record)["image"].shape == (1, 24, 32)


def test_mapper_leaves_out_crowds_and_what_a_crop_removes(records):
    record = dict(records[0])
    record["annotations"] = [annotation(0, 0, 30, 20, iscrowd=1), *record["annotations"]]
    assert mapper()(record)["instances"].gt_classes.tolist() == [0, 1]
    crop = T.CropTransform(9, 0, 20, 20)
    made = mapper(use_instance_mask=False, augmentations=[crop])(record)["instances"]
    assert made.gt_boxes.tensor.tolist() == [[0, 3, 1, 9], [1, 4, 6, 13]]
    crop = T.CropTransform(10, 0, 20, 20)
    assert mapper(use_instance_mask=False, augmentations=[crop])(record)[
        "instances"
    ].gt_classes.tolist() == [1]


@native_only
def test_mapper_recomputes_boxes_from_cut_masks(records):
    record = dict(records[0])
    triangle = annotation(2, 3, 8, 8)
    triangle["segmentation"] = [[2, 3, 10, 3, 10, 11]]
    record["annotations"] = [triangle]
    crop = T.CropTransform(0, 0, 6, 24)
    made = mapper(augmentations=[crop], recompute_boxes=True)(record)["instances"]
    assert torch.allclose(made.gt_boxes.tensor, torch.tensor([[2.0, 3, 6, 7]]))
    kept = mapper(augmentations=[crop])(record)["instances"]
    assert torch.allclose(kept.gt_boxes.tensor, torch.tensor([[2.0, 3, 6, 11]]))


@pytest.mark.skipif(USE_DETECTRON2, reason="Detectron2 recomputes no boxes where no object is")
def test_mapper_recomputes_boxes_of_no_objects(records):
    record = {**records[0], "annotations": []}
    assert len(mapper(recompute_boxes=True)(record)["instances"].gt_boxes) == 0


def test_mapper_reads_segmentation(records, tmp_path):
    labels = np.random.default_rng(0).integers(0, 256, (24, 32)).astype(np.uint8)
    Image.fromarray(labels).save(tmp_path / "labels.png")
    record = {**records[0], "sem_seg_file_name": str(tmp_path / "labels.png")}
    made = mapper(augmentations=[T.HFlipTransform(32)])(record)
    assert made["sem_seg"].dtype == torch.int64
    assert np.array_equal(made["sem_seg"].numpy(), labels[:, ::-1])


def test_dataset_from_list():
    items = [{"a": [1]}, {"b": 2}, "text", None, np.arange(3)]
    dataset = DatasetFromList(items)
    assert len(dataset) == 5 and dataset[0] == {"a": [1]} and dataset[3] is None
    assert dataset[4].tolist() == [0, 1, 2]
    dataset[0]["a"].append(2)
    assert dataset[0] == {"a": [1]}


@native_only
def test_serialised_lists_behave_like_lists():
    dataset = DatasetFromList([1, 2, 3])
    assert dataset[-1] == 3 and list(dataset) == [1, 2, 3]
    assert list(pickle.loads(pickle.dumps(dataset))) == [1, 2, 3]
    assert len(DatasetFromList([])) == 0


def none_for_odd(value):
    return None if value % 2 else value * 10


def test_map_dataset_takes_another_item_for_none():
    dataset = MapDataset(DatasetFromList([0, 1, 2, 3, 4]), none_for_odd)
    assert len(dataset) == 5 and dataset[2] == 20
    assert all(dataset[1] in (0, 20, 40) for _ in range(10))
    assert next(iter(pickle.loads(pickle.dumps(dataset)))) == 0


def test_aspect_ratio_groups():
    sizes = [(3, 4), (4, 3), (4, 4), (2, 5), (1, 9), (9, 1)]
    items = [{"height": h, "width": w, "id": i} for i, (h, w) in enumerate(sizes)]
    batches = [[d["id"] for d in batch] for batch in AspectRatioGroupedDataset(items, 2)]
    assert batches == [[1, 2], [0, 3]]


def test_training_sampler_goes_through_permutations():
    drawn = list(itertools.islice(TrainingSampler(5, seed=3), 15))
    epochs = [drawn[i : i + 5] for i in range(0, 15, 5)]
    assert all(sorted(epoch) == list(range(5)) for epoch in epochs)
    assert epochs[0] != epochs[1] or epochs[1] != epochs[2]
    assert drawn == list(itertools.islice(TrainingSampler(5, seed=3), 15))
    assert drawn != list(itertools.islice(TrainingSampler(5, seed=4), 15))
    ordered = TrainingSampler(3, shuffle=False)
    assert list(itertools.islice(ordered, 7)) == [0, 1, 2, 0, 1, 2, 0]
    with pytest.raises(ValueError):
        TrainingSampler(0)


@pytest.mark.parametrize("world_size", [2, 3])
def test_samplers_divide_the_work(monkeypatch, world_size):
    alone = list(itertools.islice(TrainingSampler(7, seed=1), 21))
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda group=None: world_size)
    shares, ranges = [], []
    for rank in range(world_size):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda group=None, rank=rank: rank)
        shares.append(list(itertools.islice(TrainingSampler(7, seed=1), 21 // world_size)))
        ranges.append(list(InferenceSampler(7)))
    together = [index for group in zip(*shares) for index in group]
    assert together == alone[: len(together)]
    assert [i for share in ranges for i in share] == list(range(7))
    assert max(map(len, ranges)) - min(map(len, ranges)) <= 1


def test_dataset_dicts_are_filtered_and_joined(records, register):
    crowd = {**records[0], "image_id": 100, "annotations": [annotation(0, 0, 9, 9, iscrowd=1)]}
    bare = {**records[0], "image_id": 101, "annotations": []}
    first = register("loading_first", [*records[:2], crowd, bare])
    second = register("loading_second", records[2:4])
    assert [r["image_id"] for r in get_detection_dataset_dicts([first, second])] == [0, 1, 2, 3]
    assert len(get_detection_dataset_dicts(first, filter_empty=False)) == 4


@native_only
def test_empty_training_sets_say_why(records, register):
    crowd = {**records[0], "annotations": [annotation(0, 0, 9, 9, iscrowd=1)]}
    bare = {**records[0], "annotations": []}
    name = register("loading_nothing", [crowd, bare, bare])
    with pytest.raises(DataError, match="of its 3 images 2 have no annotations and 1 only"):
        get_detection_dataset_dicts(name)
    empty = register("loading_empty", [])
    with pytest.raises(DataError, match="'loading_empty' is empty"):
        get_detection_dataset_dicts(empty)
    for build, options in (
        (build_detection_train_loader, {"total_batch_size": 1}),
        (build_detection_test_loader, {}),
    ):
        with pytest.raises(DataError, match="set is empty"):
            build([], mapper=mapper(), **options)


def test_data_sets_of_other_classes_cannot_be_joined(records, register):
    names = [register("loading_ab", records), register("loading_xy", records, ("x", "y"))]
    with pytest.raises(ValueError, match="thing_classes"):
        get_detection_dataset_dicts(names)
    assert len(get_detection_dataset_dicts(names, check_consistency=False)) == 12


@native_only
def test_category_ids_outside_the_classes_are_named(records, register):
    name = register("loading_one_class", records, ("a",))
    with pytest.raises(DataError, match="category id 1, but there are 1 classes"):
        get_detection_dataset_dicts(name)


def numbers_of(batch):
    return [int(item["image"][0, 0, 0]) for item in batch]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_train_loader_gives_every_image_once_an_epoch(records, num_workers):
    loader = build_detection_train_loader(
        records,
        mapper=mapper(),
        sampler=TrainingSampler(6, seed=0),
        total_batch_size=2,
        aspect_ratio_grouping=False,
        num_workers=num_workers,
    )
    batches = list(itertools.islice(loader, 6))
    assert all(len(batch) == 2 for batch in batches)
    drawn = [number for batch in batches for number in numbers_of(batch)]
    assert sorted(drawn[:6]) == sorted(drawn[6:]) == list(range(6))
    assert drawn == list(itertools.islice(TrainingSampler(6, seed=0), 12))
    assert all([item["image_id"] for item in batch] == numbers_of(batch) for batch in batches)


def test_train_loader_groups_by_shape(records):
    loader = build_detection_train_loader(records, mapper=mapper(), total_batch_size=2)
    for batch in itertools.islice(loader, 8):
        assert len({item["width"] > item["height"] for item in batch}) == 1


def count(batch):
    return len(batch)


@pytest.mark.parametrize("grouping", [True, False])
def test_train_loader_collates(records, grouping):
    loader = build_detection_train_loader(
        records,
        mapper=mapper(),
        total_batch_size=3,
        aspect_ratio_grouping=grouping,
        collate_fn=count,
    )
    assert list(itertools.islice(loader, 2)) == [3, 3]


def random_of(record):
    return {**record, "random": (np.random.rand(), float(torch.rand(())))}


@native_only
def test_workers_draw_differently_and_a_seed_repeats_them(records):
    def draw(seed):
        loader = build_detection_train_loader(
            records,
            mapper=random_of,
            sampler=TrainingSampler(6, seed=0),
            total_batch_size=1,
            aspect_ratio_grouping=False,
            num_workers=2,
            seed=seed,
        )
        return [batch[0]["random"] for batch in itertools.islice(loader, 6)]

    first = draw(1)
    assert len({number for pair in first for number in pair}) == 12
    assert draw(1) == first and draw(2) != first


@pytest.mark.parametrize("batch_size, lengths", [(1, [1] * 6), (4, [4, 2])])
def test_test_loader(records, batch_size, lengths):
    loader = build_detection_test_loader(
        records, mapper=mapper(False), batch_size=batch_size, num_workers=1
    )
    batches = list(loader)
    assert len(loader) == len(lengths) and [len(batch) for batch in batches] == lengths
    assert [number for batch in batches for number in numbers_of(batch)] == list(range(6))
