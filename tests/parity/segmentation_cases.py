"""Segmenters: what they compute of the same images with the same weights."""

import torch
from shared import ROOT, fill, generator

from iwin_d2.d2.config import LazyCall as L
from iwin_d2.d2.config import LazyConfig, instantiate
from iwin_d2.d2.layers import ShapeSpec
from iwin_d2.d2.modeling import SemSegFPNHead

_CLASSES = 4
_SIZES = ((96, 128), (61, 75))


def _config(head):
    """A segmenter's config with a small backbone."""
    model = LazyConfig.load(str(ROOT / f"configs/common/models/{head}_iwin.py")).model
    backbone = model.backbone.get("bottom_up", model.backbone)
    backbone.update(embed_dim=16, depths=[1, 1, 2, 1], num_heads=[2, 4, 8, 16], drop_path_rate=0.0)
    model.sem_seg_head.num_classes = _CLASSES
    return model


def _batch():
    """Images of two sizes, some of their pixels without a class, scores wanted in a third one."""
    batch = []
    for number, size in enumerate(_SIZES):
        random = generator(f"segmented image {number}")
        labels = torch.randint(0, _CLASSES, size, generator=random)
        labels[torch.rand(size, generator=random) < 0.2] = 255
        image = torch.randint(0, 256, (3, *size), generator=random).to(torch.uint8)
        batch.append({"image": image, "sem_seg": labels, "height": 90, "width": 100 + number})
    return batch


def _run(config):
    """Build a model, train it on a batch, segment that."""
    torch.manual_seed(1)
    model = instantiate(config)
    found = {
        "names": [*model.state_dict()],
        "initial weights": {n: v.clone() for n, v in model.state_dict().items()},
        "next random numbers": torch.rand(3),
    }
    for module in fill(model).modules():
        if isinstance(module, torch.nn.Dropout2d):
            module.p = 0.0  # what it leaves out is not to be compared
    found["losses"] = model.train()(_batch())
    sum(found["losses"].values()).backward()
    # A level of the pyramid that the head does not take has none.
    found["gradients"] = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    state = model.state_dict()
    found["running statistics"] = {n: v.clone() for n, v in state.items() if "running_" in n}
    with torch.no_grad():
        found["scores"] = [output["sem_seg"] for output in model.eval()(_batch())]
    return found


def upernet():
    """The published UPerNet, small."""
    config = _config("upernet")
    config.sem_seg_head.channels = 24
    config.sem_seg_head.auxiliary.channels = 16
    config.sem_seg_head.loss.class_weights = [1.0, 2.0, 0.5, 1.0]
    return _run(config)


def semantic_fpn():
    """This project's head on a pyramid, learning from the hardest pixels."""
    config = _config("semantic_fpn")
    config.sem_seg_head.update(conv_dims=32, norm="SyncBN")
    config.sem_seg_head.loss.ohem_min_kept = 3000
    return _run(config)


def plain_semantic_fpn():
    """Detectron2's own head, with another norm and on fewer levels."""
    config = _config("semantic_fpn")
    config.sem_seg_head = L(SemSegFPNHead)(
        input_shape={
            name: L(ShapeSpec)(channels=256, stride=stride)
            for name, stride in (("p5", 32), ("p3", 8), ("p4", 16))
        },
        num_classes=_CLASSES,
        conv_dims=16,
        common_stride=8,
        loss_weight=0.5,
        norm="BN",
        ignore_value=255,
    )
    return _run(config)


CASES = {
    "UPerNet": upernet,
    "Semantic FPN": semantic_fpn,
    "Detectron2's Semantic FPN": plain_semantic_fpn,
}
