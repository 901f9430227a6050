"""What test_distributed.py runs in two processes at once, and in one for comparison."""

import contextlib
import copy
import json
import multiprocessing
import pickle
import socket
import traceback
from pathlib import Path

import torch
from PIL import Image
from torch import nn

from iwin_d2.d2.config import LazyConfig, instantiate
from iwin_d2.d2.data import DatasetCatalog, MetadataCatalog, build_detection_test_loader
from iwin_d2.d2.data.datasets import register_coco_instances
from iwin_d2.d2.engine import create_ddp_model
from iwin_d2.d2.evaluation import COCOEvaluator, inference_on_dataset
from iwin_d2.d2.structures import BitMasks, Boxes, Instances
from iwin_d2.d2.utils import comm
from iwin_d2.d2.utils.events import EventStorage
from iwin_d2.data.classification.evaluator import ClassificationEvaluator
from iwin_d2.data.semantic_segmentation.evaluator import SegmentationEvaluator
from iwin_d2.modeling.sync_batch_norm import convert_sync_batch_norm

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "projects/cascade_mask_rcnn/configs/custom_coco_small.py"


def run_all(folder):
    """Run every check; each process saves {name: result, or the traceback} into the folder."""
    results = {}
    for name, check in CHECKS.items():
        try:
            results[name] = check(folder)
        except Exception:
            results[name] = traceback.format_exc()
    torch.save(results, Path(folder, f"{comm.get_rank()}.pt"))
    return comm.all_gather(comm.get_rank())


def communication(_folder):
    rank = comm.get_rank()
    return {
        "world_size": comm.get_world_size(),
        "ranks": (rank, comm.get_local_rank(), comm.is_main_process()),
        "all_gather": comm.all_gather({"rank": rank}),
        "gather": comm.gather(rank),
        "seed": comm.shared_random_seed(),
        "mean": float(comm.reduce_dict({"a": torch.tensor(2.0 + 4 * rank)})["a"]),
        "threads": torch.get_num_threads(),
        "start_method": multiprocessing.get_start_method(),
    }


# --- synchronised batch norm

# Shapes of the batches of the two processes.
NORM_CASES = {
    "uneven": ((5, 3, 4, 2), (2, 3, 4, 2)),
    "one is empty": ((4, 3, 2, 2), (0, 3, 2, 2)),
    "all are empty": ((0, 3, 2, 2), (0, 3, 2, 2)),
    "vectors": ((3, 3), (4, 3)),
}


def norm_case(name, dtype):
    """The inputs of both processes, and what the gradient of each output is to be."""
    generator = torch.Generator().manual_seed(len(name))
    shapes = NORM_CASES[name]
    # A mean far from zero, where the mean of squares less the squared mean would lose digits.
    xs = [torch.randn(s, generator=generator, dtype=torch.float64) * 2 + 50 for s in shapes]
    gradients = [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]
    return [x.to(dtype) for x in xs], [g.to(dtype) for g in gradients]


def make_norm(kind, dtype, momentum=0.1, affine=True):
    norm = kind(3, momentum=momentum, affine=affine).to(dtype)
    if affine:
        with torch.no_grad():
            norm.weight.copy_(torch.tensor([0.5, 1.0, 2.0]))
            norm.bias.copy_(torch.tensor([-1.0, 0.0, 1.0]))
    return norm


def apply_norm(norm, x, gradient):
    """Two steps; everything that comes out of the second one."""
    norm(x)
    x = x.clone().requires_grad_()
    output = norm(x)
    (output * gradient).sum().backward()
    result = {"output": output.detach(), "gradient": x.grad, **norm.state_dict()}
    result.update({f"gradient of {k}": p.grad for k, p in norm.named_parameters()})
    return result


def batch_norm(_folder):
    rank = comm.get_rank()
    results = {}
    for dtype in (torch.float64, torch.float32):
        for name in NORM_CASES:
            for momentum in (0.1, None):
                xs, gradients = norm_case(name, dtype)
                norm = convert_sync_batch_norm(make_norm(nn.SyncBatchNorm, dtype, momentum))
                results[name, dtype, momentum] = apply_norm(norm, xs[rank], gradients[rank])
    xs, gradients = norm_case("uneven", torch.float64)
    norm = convert_sync_batch_norm(make_norm(nn.SyncBatchNorm, torch.float64, affine=False))
    results["not affine"] = apply_norm(norm, xs[rank], gradients[rank])
    half = xs[rank].bfloat16()
    norm = convert_sync_batch_norm(make_norm(nn.SyncBatchNorm, torch.float32))
    results["half"] = norm(half).detach()
    norm.eval()
    results["eval"] = norm(xs[rank].float()).detach()
    results["eval of plain"] = make_plain(norm)(xs[rank].float()).detach()
    return results


def make_plain(norm):
    plain = nn.BatchNorm2d(3).eval()
    plain.load_state_dict(norm.state_dict())
    return plain


def conversion(_folder):
    model = nn.Sequential(nn.Conv2d(1, 3, 1), nn.SyncBatchNorm(3), nn.BatchNorm2d(3))
    parameters = list(model.parameters())
    keys = list(model.state_dict())
    converted = convert_sync_batch_norm(model)
    copies = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    x = torch.full((1, 1, 2, 2), float(comm.get_rank()))
    for module in (model, *copies):
        module(x)
    return {
        "same": converted is model
        and all(a is b for a, b in zip(model.parameters(), parameters))
        and list(model.state_dict()) == keys,
        "kinds": [type(module).__name__ for module in model],
        "is a": isinstance(model[1], nn.modules.batchnorm._BatchNorm),
        "means": [m[1].running_mean for m in (model, *copies)],
    }


# --- the small cascade under DistributedDataParallel


def build_cascade(norm="", masks=True, **backbone):
    cfg = LazyConfig.load(str(CONFIG))
    cfg.model.roi_heads.num_classes = 3
    cfg.model.backbone.bottom_up.update(backbone)
    for head in cfg.model.roi_heads.box_heads:
        head.conv_norm = norm
    if not masks:
        cfg.model.roi_heads.update(mask_in_features=None, mask_pooler=None, mask_heads=None)
    torch.manual_seed(0)
    return instantiate(cfg.model).train()


def image(seed, objects):
    """One training record of 64 x 64 pixels."""
    generator = torch.Generator().manual_seed(seed)
    instances = Instances((64, 64))
    corners = torch.rand(objects, 2, generator=generator) * 30
    sizes = torch.rand(objects, 2, generator=generator) * 20 + 12
    boxes = torch.cat([corners, corners + sizes], 1)
    masks = torch.zeros(objects, 64, 64, dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes.round().int().tolist()):
        mask[y0:y1, x0:x1] = True
    instances.gt_boxes = Boxes(boxes)
    instances.gt_masks = BitMasks(masks)
    instances.gt_classes = torch.arange(objects) % 3
    pixels = torch.randint(0, 256, (3, 64, 64), generator=generator, dtype=torch.uint8)
    return {"image": pixels, "instances": instances, "height": 64, "width": 64}


# What the model is built with, and how many objects the two images of each process have.
CASCADE_CASES = {
    "plain": ({}, ((2, 1), (3, 2))),
    "frozen, checkpointed, drop path": (
        {"freeze_at": 2, "use_checkpoint": [True] * 4, "drop_path_rate": 0.3},
        ((1, 2), (2, 2)),
    ),
    "no objects in one process": ({"use_checkpoint": [True] * 4}, ((2, 1), (0, 0))),
    "no objects at all": ({}, ((0, 0), (0, 0))),
    "boxes alone": ({"masks": False}, ((0, 0), (1, 2))),
    "synchronised": (
        {"norm": "SyncBN", "drop_path_rate": 0.2, "use_checkpoint": [True] * 4},
        ((2, 1), (0, 0)),
    ),
}


def cascade_gradients(model, rank, objects):
    """Losses of one process's batch; the gradients are left in the model."""
    batch = [image(10 * rank + i, count) for i, count in enumerate(objects[rank])]
    torch.manual_seed(100 + rank)  # proposals to learn from are drawn at random
    model.zero_grad()
    with EventStorage():
        losses = model(batch)
    sum(losses.values()).backward()
    return {name: loss.detach() for name, loss in losses.items()}


def cascade(_folder):
    rank = comm.get_rank()
    torch.set_num_threads(1)
    results = {}
    for name, (options, objects) in CASCADE_CASES.items():
        model = convert_sync_batch_norm(build_cascade(**options))
        torch.manual_seed(rank)  # and the first process's weights are what all begin with
        wrapped = create_ddp_model(model, device_ids=None, find_unused_parameters=False)
        for _ in range(2):  # an unused parameter is found in the second step
            losses = cascade_gradients(wrapped, rank, objects)
        results[name] = {
            "losses": losses,
            "gradients": {k: p.grad for k, p in model.named_parameters() if p.requires_grad},
            "statistics": {k: b for k, b in model.named_buffers() if "running" in k},
        }
    return results


# --- a small segmenter under DistributedDataParallel

SEGMENTER = ROOT / "configs/common/models/upernet_iwin.py"
IGNORED = 255


def build_segmenter():
    """Without what is random in training."""
    model = LazyConfig.load(str(SEGMENTER)).model
    small = {"embed_dim": 8, "depths": [1] * 4, "num_heads": [1, 1, 2, 2], "window_size": 4}
    model.backbone.update(drop_path_rate=0.0, **small)
    model.sem_seg_head.update(num_classes=3, channels=8, pool_scales=[1, 2], dropout=0.0)
    model.sem_seg_head.auxiliary.update(channels=8, dropout=0.0)
    torch.manual_seed(0)
    return instantiate(model).train()


def labelled_images(rank, ignored):
    """Two images of a process, 64 x 64; `ignored` rows of their labels do not count."""
    generator = torch.Generator().manual_seed(rank)
    batch = []
    for _ in range(2):
        pixels = torch.randint(0, 256, (3, 64, 64), generator=generator, dtype=torch.uint8)
        labels = torch.randint(0, 3, (64, 64), generator=generator)
        labels[:ignored] = IGNORED
        batch.append({"image": pixels, "sem_seg": labels, "height": 64, "width": 64})
    return batch


# How many rows of the labels are ignored in each process.
SEGMENTER_CASES = {"some pixels": (8, 8), "all pixels of one process": (64, 0), "all": (64, 64)}


def segmenter_gradients(model, batch):
    """Losses of a batch; the gradients are left in the model."""
    model.zero_grad()
    losses = model(batch)
    sum(losses.values()).backward()
    return {name: loss.detach() for name, loss in losses.items()}


def segmenter_state(model):
    """What a step leaves: gradients and statistics."""
    return {
        "gradients": {k: p.grad for k, p in model.named_parameters() if p.requires_grad},
        "statistics": {k: b for k, b in model.named_buffers() if "running" in k},
    }


def segmenter(_folder):
    rank = comm.get_rank()
    torch.set_num_threads(1)
    results = {}
    for name, ignored in SEGMENTER_CASES.items():
        model = convert_sync_batch_norm(build_segmenter())
        wrapped = create_ddp_model(model, device_ids=None, find_unused_parameters=False)
        for _ in range(2):  # an unused parameter is found in the second step
            losses = segmenter_gradients(wrapped, labelled_images(rank, ignored[rank]))
        results[name] = {"losses": losses, **segmenter_state(model)}
    return results


# --- evaluation

LOOPBACK = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))

EVALUATION_SIZES = (5, 1)


def write_annotations(folder):
    """COCO jsons of 5 images and of 1."""
    for size in EVALUATION_SIZES:
        corners = [(i, j, 20 * j, 5 * i) for i in range(size) for j in range(3)]
        data = {
            "images": [
                {"id": i, "file_name": f"{i}.jpg", "height": 64, "width": 64} for i in range(size)
            ],
            "categories": [{"id": 7, "name": "square"}, {"id": 9, "name": "other"}],
            "annotations": [
                {
                    "id": number + 1,
                    "image_id": i,
                    "category_id": 7 + 2 * (j % 2),
                    "bbox": [20 * j, 5 * i, 16, 16],
                    "segmentation": [
                        [
                            20 * j,
                            5 * i,
                            20 * j + 16,
                            5 * i,
                            20 * j + 16,
                            5 * i + 16,
                            20 * j,
                            5 * i + 16,
                        ]
                    ],
                    "area": 256,
                    "iscrowd": 0,
                }
                for number, (i, j, x, y) in enumerate(corners)
            ],
        }
        Path(folder, f"{size}.json").write_text(json.dumps(data))


class Oracle(nn.Module):
    """Finds the squares of `write_annotations`, the less exactly the higher the image's number."""

    def __init__(self, masks):
        super().__init__()
        self.masks = masks

    def forward(self, batch):
        return [{"instances": self.detect(record["image_id"])} for record in batch]

    def detect(self, i):
        instances = Instances((64, 64))
        x = torch.arange(3) * 20.0
        shift = 1.0 * i
        y = torch.full((3,), 5.0 * i)
        instances.pred_boxes = Boxes(torch.stack([x + shift, y, x + 16 + shift, y + 16], 1))
        instances.scores = torch.tensor([0.9, 0.8, 0.7]) - 0.05 * i
        instances.pred_classes = torch.tensor([0, 1, 0])
        if self.masks:
            masks = torch.zeros(3, 64, 64, dtype=torch.bool)
            for mask, (x0, y0, x1, y1) in zip(masks, instances.pred_boxes.tensor.int().tolist()):
                mask[y0:y1, x0:x1] = True
            instances.pred_masks = masks
        return instances


def evaluation(folder):
    results = {}
    for size in EVALUATION_SIZES:
        for masks in (True, False):
            name = f"distributed_{size}"
            with registered(name, Path(folder, f"{size}.json")):
                records = [{"image_id": i, "height": 64, "width": 64} for i in range(size)]
                loader = build_detection_test_loader(records, mapper=dict)
                output = Path(folder, f"predictions_{comm.get_world_size()}")
                evaluator = COCOEvaluator(name, output_dir=str(output))
                found = inference_on_dataset(Oracle(masks), loader, evaluator)
                results[size, masks] = {"results": dict(found), "images": len(loader)}
    return results


CLASSES = ["wall", "floor", "door"]


def write_labels(folder):
    """Label files of 5 images of different sizes; the share of pixels to ignore grows."""
    generator = torch.Generator().manual_seed(1)
    for i in range(max(EVALUATION_SIZES)):
        labels = torch.randint(0, len(CLASSES), (20 + i, 30 - i), generator=generator)
        labels[torch.rand(labels.shape, generator=generator) < 0.2 * i] = 255
        Image.fromarray(labels.to(torch.uint8).numpy()).save(Path(folder, f"{i}.png"))


class Guesser(nn.Module):
    """Gives the pixels of an image classes, as it happens, but the same in every process."""

    def forward(self, batch):
        return [{"sem_seg_labels": self.guess(item)} for item in batch]

    def guess(self, item):
        generator = torch.Generator().manual_seed(int(item["image_id"]))
        size = item["height"], item["width"]
        return torch.randint(0, len(CLASSES), size, generator=generator)


def segmentation(folder):
    """Results, what was written, and how many images this process had."""
    results = {}
    for size in EVALUATION_SIZES:
        name = f"distributed_labels_{size}"
        MetadataCatalog.get(name).set(stuff_classes=CLASSES)
        records = [
            {
                "file_name": f"{i}.jpg",
                "sem_seg_file_name": str(Path(folder, f"{i}.png")),
                "image_id": str(i),
                "height": 20 + i,
                "width": 30 - i,
            }
            for i in range(size)
        ]
        loader = build_detection_test_loader(records, mapper=dict)
        output = Path(folder, f"segmentation_{size}_{comm.get_world_size()}")
        evaluator = SegmentationEvaluator(name, output_dir=str(output), save_labels=True)
        found = inference_on_dataset(Guesser(), loader, evaluator)
        alone = SegmentationEvaluator(name, distributed=False)
        part = inference_on_dataset(Guesser(), loader, alone)
        results[size] = {"results": dict(found), "own": dict(part), "images": len(loader)}
        MetadataCatalog.remove(name)
    return results


class Scores(nn.Module):
    """Random scores of 7 classes, the same for an image in every process; many are equal."""

    def forward(self, batch):
        found = []
        for record in batch:
            generator = torch.Generator().manual_seed(record["image_id"])
            scores = torch.randint(0, 4, (7,), generator=generator)
            found.append({"scores": scores.float()})
        return found


def classification(folder):
    """Evaluate sets that processes and batches do not divide; of one image, one has none."""
    results = {}
    for size in (11, 1):
        records = [{"file_name": f"{i}.jpg", "label": i % 7, "image_id": i} for i in range(size)]
        loader = build_detection_test_loader(records, mapper=dict, batch_size=3)
        output = Path(folder, f"classification_{size}_{comm.get_world_size()}")
        names = [f"class {number}" for number in range(7)]
        evaluator = ClassificationEvaluator(names, output_dir=str(output))
        found = inference_on_dataset(Scores(), loader, evaluator)
        results[size] = {"results": dict(found), "batches": len(loader)}
    return results


@contextlib.contextmanager
def registered(name, path):
    register_coco_instances(name, {}, str(path), "")
    try:
        DatasetCatalog.get(name)  # as training does: it fills in the metadata
        yield
    finally:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


CHECKS = {
    check.__name__: check
    for check in (
        communication,
        batch_norm,
        conversion,
        cascade,
        segmenter,
        evaluation,
        segmentation,
        classification,
    )
}
