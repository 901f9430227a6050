"""Everything beside the models: solver, evaluation, data, configs."""

import itertools
import json
from types import FunctionType

import numpy as np
import torch
from omegaconf import OmegaConf
from shared import CATEGORIES, CONFIGS, ROOT

from iwin_d2.d2.config import LazyConfig, instantiate
from iwin_d2.d2.data import (
    DatasetMapper,
    build_detection_test_loader,
    build_detection_train_loader,
    get_detection_dataset_dicts,
)
from iwin_d2.d2.data import transforms as T
from iwin_d2.d2.data.detection_utils import read_image
from iwin_d2.d2.data.samplers import InferenceSampler, TrainingSampler
from iwin_d2.d2.engine import TrainerBase, hooks
from iwin_d2.d2.evaluation import COCOEvaluator
from iwin_d2.d2.solver import get_default_optimizer_params
from iwin_d2.d2.structures import BitMasks, Boxes, Instances
from iwin_d2.data.augmentations import RandomChoice
from iwin_d2.engine.detection import load_config
from iwin_d2.engine.param_groups import get_param_groups


class _Trainer(TrainerBase):
    """Steps an optimizer without a gradient and notes the learning rates of its groups."""

    def __init__(self):
        super().__init__()
        groups = [{"params": [torch.zeros(1, requires_grad=True)], "lr": lr} for lr in (0.1, 3.0)]
        self.optimizer = torch.optim.SGD(groups)
        self.curve = []

    def run_step(self):
        self.curve.append([group["lr"] for group in self.optimizer.param_groups])
        self.optimizer.step()


def _curve(schedule, max_iter):
    trainer = _Trainer()
    trainer.register_hooks([hooks.LRScheduler(scheduler=schedule)])
    trainer.train(0, max_iter)
    return torch.tensor(trainer.curve, dtype=torch.float64)


def solver():
    """The learning rate at every iteration, and the optimiser's groups by parameters' names."""
    steps, cosine = LazyConfig.load(
        str(ROOT / "configs/common/schedules.py"), ("step_schedule", "cosine_schedule")
    )
    cfg = load_config(str(CONFIGS / "quickstart.py"), ["model.roi_heads.num_classes=4"])
    model = instantiate(cfg.model)
    model.backbone.bottom_up.patch_embed.requires_grad_(False)
    names = {parameter: name for name, parameter in model.named_parameters()}

    def describe(groups):
        return [{**g, "params": [names[p] for p in g["params"]]} for g in groups]

    default = get_default_optimizer_params
    factor = {"lr_factor_func": lambda name: 0.1 if "bottom_up" in name else 1.0}
    return {
        "step schedule": _curve(instantiate(steps(900, [600, 825], warmup_length=50)), 900),
        "cosine schedule": _curve(instantiate(cosine(warmup_length=0.1)), 700),
        "parameter groups": describe(get_param_groups(model, lr=0.1, weight_decay=0.05)),
        "Detectron2's default groups": [
            describe(default(model)),
            describe(default(model, 0.1, 0.05, weight_decay_norm=0.0)),
            describe(default(model, 0.1, 0.05, bias_lr_factor=2.0, weight_decay_bias=0.0)),
            describe(default(model, 0.1, overrides={"bias": {"weight_decay": 0.3}}, **factor)),
        ],
    }


def _predictions(record, random):
    """Some predictions near the objects, some anywhere; none for one of the images."""
    height, width = record["height"], record["width"]
    boxes, classes, masks = [], [], []
    for annotation in record["annotations"]:
        x, y, w, h = annotation["bbox"]
        for _ in range(random.integers(1, 3)):
            shift = random.normal(0, 2, 4)
            boxes.append(np.array([x, y, x + w, y + h]) + shift)
            classes.append(annotation["category_id"])
    for _ in range(random.integers(0, 4) if record["annotations"] else 0):
        low = random.uniform((0, 0), (width / 2, height / 2))
        boxes.append(np.concatenate([low, low + random.uniform(5, 30, 2)]))
        classes.append(random.integers(0, len(CATEGORIES)))
    for box in boxes:
        rows, columns = np.ogrid[:height, :width]
        x0, y0, x1, y1 = box
        center = ((rows - (y0 + y1) / 2) / (y1 - y0 + 1)) ** 2
        masks.append(center + ((columns - (x0 + x1) / 2) / (x1 - x0 + 1)) ** 2 < 0.25)
    return Instances(
        (height, width),
        pred_boxes=Boxes(torch.tensor(np.array(boxes).reshape(-1, 4)).float()),
        scores=torch.tensor(random.uniform(0.05, 1, len(boxes))).float(),
        pred_classes=torch.tensor(classes, dtype=torch.int64),
        pred_masks=torch.tensor(np.array(masks).reshape(-1, height, width)),
    )


def _evaluate(name, outputs, folder, **kwargs):
    evaluator = COCOEvaluator(name, output_dir=str(folder), distributed=False, **kwargs)
    evaluator.reset()
    for record, output in outputs:
        evaluator.process([{"image_id": record["image_id"]}], [{"instances": output}])
    results = evaluator.evaluate()
    file = folder / "coco_instances_results.json"
    return {"results": results, "file": json.loads(file.read_text())}


def evaluation(own):
    """AP of the same predictions, with and without masks, and the records written."""
    random = np.random.default_rng(4)
    records = get_detection_dataset_dicts("parity", filter_empty=False)
    outputs = [(record, _predictions(record, random)) for record in records]
    folder = own / "evaluation"
    found = {"boxes and masks": _evaluate("parity", outputs, folder)}
    for _, instances in outputs:
        instances.remove("pred_masks")
    found["boxes"] = _evaluate("parity", outputs, folder)
    found["one image"] = _evaluate("parity", outputs[:1], folder, tasks=("bbox",))
    found["another limit"] = _evaluate("parity", outputs, folder, max_dets_per_image=11)
    return found


def _choose(short_edges):
    return T.ResizeShortestEdge(short_edges, max_size=120, sample_style="choice")


def _augmentations():
    """The recipe's, at the size of the images."""
    crop = T.RandomCrop("absolute_range", (30, 70))
    edges = [40, 56, 64, 72]
    two = [[_choose(edges)], [_choose([50, 60]), crop, _choose(edges)]]
    return [T.RandomFlip(horizontal=True), RandomChoice(two)]


def _mapped(mapper, record, seed):
    np.random.seed(seed)
    data = mapper(record)
    instances = data.pop("instances")
    masks = instances.gt_masks
    if not isinstance(masks, BitMasks):
        # Where a crop cuts a polygon, its corners may be listed from another one on.
        masks = BitMasks.from_polygon_masks(masks, *instances.image_size)
    fields = {"boxes": instances.gt_boxes.tensor, "classes": instances.gt_classes}
    return {**data, **fields, "masks": masks.tensor}


def _order(loader, count=None):
    return [[x["image_id"] for x in batch] for batch in itertools.islice(loader, count)]


def _plain(record):
    for annotation in record["annotations"]:
        annotation["bbox_mode"] = int(annotation["bbox_mode"])
        if isinstance(annotation.get("segmentation"), dict):
            annotation["segmentation"] = dict(annotation["segmentation"])
    return record


def data(dataset):
    """Records, images, augmented images with their objects, the order of samplers and loaders."""
    records = get_detection_dataset_dicts("parity")
    every = get_detection_dataset_dicts("parity", filter_empty=False)
    found = {"augmented": _augmented(records), **_loaders(every)}
    found["images of many kinds"] = {
        f"{path.name} as {kind}": torch.tensor(read_image(str(path), kind).copy())
        for path in sorted((dataset / "kinds").iterdir())
        for kind in ("RGB", "BGR", "L", None)
    }
    found["records"] = [[_plain(record) for record in part] for part in (records, every)]
    return found


def _augmented(records):
    found = {}
    for mask_format, recompute in itertools.product(("polygon", "bitmask"), (False, True)):
        mapper = DatasetMapper(
            is_train=True,
            augmentations=_augmentations(),
            image_format="RGB" if recompute else "BGR",
            use_instance_mask=True,
            instance_mask_format=mask_format,
            recompute_boxes=recompute,
        )
        found[f"{mask_format}, boxes {'recomputed' if recompute else 'cut'}"] = [
            _mapped(mapper, record, seed) for seed, record in itertools.product(range(12), records)
        ]
    return found


def _loaders(records):
    mapper = DatasetMapper(False, augmentations=[_choose([48])], image_format="RGB")
    test_loader = build_detection_test_loader(records, mapper=mapper, batch_size=2)
    images = [x["image"] for batch in test_loader for x in batch]
    orders = []
    for grouping in (True, False):
        loader = build_detection_train_loader(
            records,
            mapper=None,
            sampler=TrainingSampler(len(records), seed=5),
            total_batch_size=2,
            aspect_ratio_grouping=grouping,
        )
        orders.append(_order(loader, 12))
    return {
        "test loader": [_order(test_loader), images],
        "training loader": orders,
        "samplers": [
            [*itertools.islice(TrainingSampler(11, seed=7), 40)],
            [*itertools.islice(TrainingSampler(4, shuffle=False), 10)],
            [*InferenceSampler(7)],
        ],
    }


def _described(value):
    """A config as plain data: what is an object of a framework goes by its name."""
    if isinstance(value, dict):
        return {key: _described(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_described(item) for item in value]
    if isinstance(value, (type, FunctionType)):
        return value.__name__
    if isinstance(value, str) and value.startswith(("detectron2.", "iwin_d2.native.")):
        return value.rpartition(".")[2]
    return value


def configs():
    """Every config that both have, as the framework's own LazyConfig.load reads it."""
    found = {}
    for path in sorted(ROOT.glob("projects/*/configs/*.py")):
        if path.stem.endswith(("_lvis_v1", "_voc0712")):
            continue  # of data sets that Detectron2 alone reads
        cfg = LazyConfig.load(str(path))
        name = str(path.relative_to(ROOT))
        found[name] = _described(OmegaConf.to_container(cfg, resolve=False))
    return {"every config": found}


CASES = {"solver": solver, "evaluation": evaluation, "data": data, "configs": configs}
