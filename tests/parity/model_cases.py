"""Models: what they compute of the same images with the same weights, in every part."""

import numpy as np
import torch
from shared import CONFIGS, fill, generator

from iwin_d2.d2.config import LazyCall as L
from iwin_d2.d2.config import instantiate
from iwin_d2.d2.layers import ShapeSpec, paste_masks_in_image
from iwin_d2.d2.modeling import (
    Box2BoxTransform,
    FastRCNNConvFCHead,
    FastRCNNOutputLayers,
    MaskRCNNConvUpsampleHead,
    Matcher,
    StandardROIHeads,
)
from iwin_d2.d2.structures import BitMasks, Boxes, Instances, PolygonMasks
from iwin_d2.d2.utils.events import EventStorage
from iwin_d2.engine.detection import load_config

_CLASSES = 4
_SIZES = ((160, 224), (110, 90), (64, 64))


def _quickstart():
    overrides = [
        f"model.roi_heads.num_classes={_CLASSES}",
        # On every level there are anchors that lie in the image, and boxes are of all sizes.
        "model.proposal_generator.anchor_generator.sizes=[[8],[16],[32],[64],[128]]",
    ]
    return load_config(str(CONFIGS / "quickstart.py"), overrides).model


def _cascade():
    cfg = _quickstart()
    # As many as there are: every anchor and proposal has its part in the losses.
    cfg.proposal_generator.update(batch_size_per_image=5000, positive_fraction=1.0)
    cfg.roi_heads.update(batch_size_per_image=1000, positive_fraction=1.0)
    for pooler in (cfg.roi_heads.box_pooler, cfg.roi_heads.mask_pooler):
        pooler.canonical_box_size = 60  # all maps are pooled from
    return cfg


def _mask_rcnn():
    """Other parts and options: one box stage, smooth L1, norms, a seeded sampler."""
    cfg = _quickstart()
    cfg.backbone.update(norm="GN", fuse_type="avg")
    cfg.proposal_generator.head.conv_dims = [64, 64]
    cfg.proposal_generator.update(
        batch_size_per_image=1024, box_reg_loss_type="giou", loss_weight={"loss_rpn_loc": 2.0}
    )
    heads = cfg.roi_heads
    cfg.roi_heads = L(StandardROIHeads)(
        num_classes=_CLASSES,
        batch_size_per_image=32,
        positive_fraction=0.25,
        proposal_matcher=L(Matcher)(thresholds=[0.5], labels=[0, 1]),
        box_in_features=["p2", "p3", "p4", "p5"],
        box_pooler=heads.box_pooler,
        box_head=L(FastRCNNConvFCHead)(
            input_shape=L(ShapeSpec)(channels=64, height=7, width=7),
            conv_dims=[32],
            fc_dims=[64, 64],
            conv_norm="LN",
        ),
        box_predictor=L(FastRCNNOutputLayers)(
            input_shape=L(ShapeSpec)(channels=64),
            box2box_transform=L(Box2BoxTransform)(weights=(10, 10, 5, 5)),
            num_classes=_CLASSES,
            cls_agnostic_bbox_reg=True,
            smooth_l1_beta=0.5,
            test_score_thresh=0.05,
        ),
        mask_in_features=["p2", "p3", "p4", "p5"],
        mask_pooler=heads.mask_pooler,
        mask_head=L(MaskRCNNConvUpsampleHead)(
            input_shape=L(ShapeSpec)(channels=64, height=14, width=14),
            num_classes=1,
            conv_dims=[32, 32],
            conv_norm="BN",
        ),
    )
    return cfg


def _batch(mask_format):
    """Images of three sizes with three, two and no objects."""
    random, batch = np.random.default_rng(1), []
    for number, ((height, width), count) in enumerate(zip(_SIZES, (3, 2, 0))):
        image = torch.randint(0, 256, (3, height, width), generator=generator(f"image {number}"))
        low = random.uniform((0, 0), (width / 2, height / 2), (count, 2))
        high = low + random.uniform((20, 20), (width / 2, height / 2), (count, 2))
        instances = Instances((height, width))
        instances.gt_boxes = Boxes(torch.tensor(np.concatenate([low, high], 1)).float())
        instances.gt_classes = torch.tensor(random.integers(0, _CLASSES, count))
        diamonds = PolygonMasks(
            [
                [np.array([x0, (y0 + y1) / 2, (x0 + x1) / 2, y0, x1, y1 - 3, (x0 + x1) / 2, y1])]
                for (x0, y0), (x1, y1) in zip(low, high)
            ]
        )
        bitmaps = BitMasks.from_polygon_masks(diamonds, height, width)
        instances.gt_masks = diamonds if mask_format == "polygon" else bitmaps
        # Results are wanted for an image of another size, as in every evaluation.
        record = {"image": image.to(torch.uint8), "height": 2 * height, "width": 3 * width // 2}
        batch.append({**record, "instances": instances})
    return batch


def _fields(instances):
    """The tensors of Instances by name."""
    fields = {name: getattr(v, "tensor", v) for name, v in instances.get_fields().items()}
    return {"image_size": tuple(instances.image_size), **fields}


def _run(model, batch):
    """Go through a model's parts, training it and detecting with it."""
    images = model.preprocess_image(batch)
    truth = [x["instances"] for x in batch]
    features = model.backbone(images.tensor)
    rpn = model.proposal_generator
    found = {
        "input": images.tensor,
        "feature maps": features,
        "anchors": [b.tensor for b in rpn.anchor_generator([features[f] for f in rpn.in_features])],
    }
    for mode in (True, False):
        model.train(mode)
        with EventStorage():
            proposals, _ = rpn(images, features, truth if mode else None)
        found[f"{'training' if mode else 'test'} proposals"] = [*map(_fields, proposals)]

    model.train()
    torch.manual_seed(3)
    with EventStorage() as storage:
        losses = model(batch)
    sum(losses.values()).backward()
    found["losses"] = losses
    found["metrics"] = {name: v for name, (v, _) in storage.latest().items()}
    found["gradients"] = {name: p.grad for name, p in model.named_parameters()}
    state = model.state_dict()
    found["running statistics"] = {n: v for n, v in state.items() if "running_" in n}

    model.eval()
    with torch.no_grad():
        raw = model.inference(batch, do_postprocess=False)
        found["detections"] = [_fields(x["instances"]) for x in model(batch)]
    found["detections before pasting"] = [*map(_fields, raw)]
    # As probabilities, 0 to 255, too: how near to the threshold is a pixel that differs?
    scaled = [(x.pred_masks[:, 0], x.pred_boxes, x.image_size) for x in raw]
    found["pasted probabilities"] = [paste_masks_in_image(*x, threshold=-1) for x in scaled]
    found["pasted masks"] = [paste_masks_in_image(*x) for x in scaled]
    return found


def cascade():
    """The quickstart's cascade, with polygons; every anchor and proposal counts."""
    return _run(fill(instantiate(_cascade())), _batch("polygon"))


def mask_rcnn():
    """A Mask R-CNN with bitmaps and a seeded sampler."""
    return _run(fill(instantiate(_mask_rcnn())), _batch("bitmask"))


def published():
    """The published Cascade Mask R-CNN T on a small image: names, shapes, detections."""
    cfg = load_config(str(CONFIGS / "cascade_mask_rcnn_iwin_t_1x_coco.py"), [])
    cfg.model.proposal_generator.post_nms_topk = (30, 30)
    for predictor in cfg.model.roi_heads.box_predictors:
        predictor.test_score_thresh = 0.01  # of 80 classes, untrained ones are hardly above chance
    model = fill(instantiate(cfg.model)).eval()
    image = torch.randint(0, 256, (3, 64, 96), generator=generator("published"))
    with torch.no_grad():
        features = model.backbone(model.preprocess_image([{"image": image}]).tensor)
        (result,) = model([{"image": image, "height": 128, "width": 192}])
    return {
        "names and shapes": [[name, *value.shape] for name, value in model.state_dict().items()],
        "feature maps": features,
        "detections": _fields(result["instances"]),
    }


def initial_weights():
    """What one seed makes of the quickstart's config, and how many random numbers it takes."""
    torch.manual_seed(1)
    model = instantiate(_quickstart())
    state = model.state_dict()
    return {"names": [*state], "weights": state, "next random numbers": torch.rand(3)}


CASES = {
    "quickstart cascade": cascade,
    "Mask R-CNN": mask_rcnn,
    "published T": published,
    "initial weights": initial_weights,
}
