"""Every shipped config of a detector builds, says what the published recipe says, and trains."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from iwin_d2.d2.config import instantiate
from iwin_d2.d2.engine import default_argument_parser
from iwin_d2.d2.structures import BoxMode
from iwin_d2.d2.utils.events import EventStorage
from iwin_d2.data.shapes import generate_shapes_dataset
from iwin_d2.engine.detection import load_config, run_detection
from iwin_d2.errors import ConfigError

PROJECTS = Path(__file__).resolve().parents[2] / "projects"
FOLDERS = {
    "mask_rcnn": PROJECTS / "mask_rcnn/configs",
    "cascade_mask_rcnn": PROJECTS / "cascade_mask_rcnn/configs",
}

# Of each detector: (parameters with 80 classes, drop path of the 1x config, of the 3x config).
# Those with masks are the numbers of the published models and configs.
COCO = {
    "mask_rcnn": {
        "mask_rcnn_iwin_t": (49_732_752, 0.1, 0.2),
        "mask_rcnn_iwin_s": (71_072_400, 0.2, 0.2),
        "faster_rcnn_iwin_t": (47_089_472, 0.1, 0.2),
        "faster_rcnn_iwin_s": (68_429_120, 0.2, 0.2),
    },
    "cascade_mask_rcnn": {
        "cascade_mask_rcnn_iwin_t": (87_567_954, 0.0, 0.2),
        "cascade_mask_rcnn_iwin_s": (108_907_602, 0.0, 0.2),
        "cascade_mask_rcnn_iwin_b": (148_450_354, 0.3, 0.3),
        "cascade_rcnn_iwin_t": (79_638_114, 0.0, 0.2),
        "cascade_rcnn_iwin_s": (100_977_762, 0.0, 0.2),
        "cascade_rcnn_iwin_b": (140_520_514, 0.3, 0.3),
    },
}
COCO_CASES = [
    pytest.param(project, name, schedule, id=f"{name}_{schedule}")
    for project, names in COCO.items()
    for name in names
    for schedule in ("1x", "3x")
]
CUSTOM = (
    "custom_coco",
    "custom_coco_boxes",
    "custom_coco_small",
    "custom_coco_small_boxes",
    "quickstart",
)
FULL_SIZED = ("custom_coco", "custom_coco_boxes")
# Of data sets that Detectron2 alone reads: see test_data_sets.py.
DETECTRON2_ONLY = {
    "mask_rcnn": {"mask_rcnn_iwin_t_1x_lvis_v1", "faster_rcnn_iwin_t_voc0712"},
    "cascade_mask_rcnn": {"cascade_mask_rcnn_iwin_t_1x_lvis_v1", "cascade_rcnn_iwin_t_voc0712"},
}
IMAGE_SIZE = (96, 128)


def load(project, name, overrides=()):
    return load_config(str(FOLDERS[project] / f"{name}.py"), list(overrides))


def trains_masks(name):
    return not ("faster_rcnn" in name or "cascade_rcnn" in name or name.endswith("boxes"))


def parts(model_cfg, part):
    """The configs of a part of the heads: one for each stage of a cascade, one, or none."""
    heads = model_cfg.roi_heads
    found = heads.get(f"{part}s") if f"{part}s" in heads else [heads.get(part)]
    return [config for config in found or [] if config is not None]


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "shapes"
    return generate_shapes_dataset(root, num_train=4, num_val=2, image_size=IMAGE_SIZE)


@pytest.fixture(scope="module")
def paths(shapes):
    return [
        f"dataset.train_json={shapes.train_json}",
        f"dataset.train_images={shapes.train_images}",
        f"dataset.test_json={shapes.val_json}",
        f"dataset.test_images={shapes.val_images}",
    ]


@pytest.fixture(scope="module")
def batch(paths):
    """Two mapped images of the generated shapes, with masks."""
    cfg = load("mask_rcnn", "quickstart", paths)
    cfg.dataloader.train.update(num_workers=0, total_batch_size=2)
    return next(iter(instantiate(cfg.dataloader.train)))


@pytest.mark.parametrize("project", FOLDERS)
def test_the_lists_are_complete(project):
    names = {f"{name}_{schedule}_coco" for name in COCO[project] for schedule in ("1x", "3x")}
    there = {path.stem for path in FOLDERS[project].glob("*.py")}
    assert there == names | set(CUSTOM) | DETECTRON2_ONLY[project]


@pytest.mark.parametrize("project, name, schedule", COCO_CASES)
def test_coco_configs(project, name, schedule):
    cfg = load(project, f"{name}_{schedule}_coco")
    params, *drop_path = COCO[project][name]
    with torch.device("meta"):  # all of a model but its numbers
        model = instantiate(cfg.model)
    assert sum(p.numel() for p in model.parameters()) == params
    assert cfg.model.backbone.bottom_up.drop_path_rate == drop_path[schedule == "3x"]
    assert hasattr(model.roi_heads, "mask_head") is trains_masks(name)

    epochs = {"1x": (12, 8, 11), "3x": (36, 27, 33)}[schedule]
    end, first, second = (7330 * epoch for epoch in epochs)
    assert cfg.train.max_iter == end
    factor = instantiate(cfg.lr_multiplier)
    for iteration, expected in (
        (0, 0.001),
        (250, 0.5005),
        (500, 1.0),
        (first - 1, 1.0),
        (first, 0.1),
        (second - 1, 0.1),
        (second, 0.01),
        (end - 1, 0.01),
    ):
        assert factor(iteration / end) == pytest.approx(expected, rel=1e-3), iteration

    cfg.optimizer.params.model = model
    optimizer = instantiate(cfg.optimizer)
    decayed = {id(p) for g in optimizer.param_groups if g["weight_decay"] for p in g["params"]}
    for parameter_name, parameter in model.named_parameters():
        free = parameter_name.startswith("backbone.bottom_up.") and "norm" in parameter_name
        assert (id(parameter) in decayed) is not free, parameter_name
    assert [group["lr"] for group in optimizer.param_groups] == [1e-4, 1e-4]
    assert optimizer.param_groups[0]["betas"] == (0.9, 0.999)
    assert {g["weight_decay"] for g in optimizer.param_groups} == {0.0, 0.05}
    assert cfg.dataloader.train.total_batch_size == 16
    assert cfg.dataloader.train.mapper.use_instance_mask is trains_masks(name)
    assert cfg.train.amp.enabled
    assert cfg.train.output_dir == f"./output/{name}_{schedule}_coco"


@pytest.mark.parametrize("project", FOLDERS)
def test_the_heads_of_the_recipes(project):
    """What the two recipes differ in (facts of the published configs)."""
    cfg = load(project, f"{project}_iwin_t_1x_coco")
    cascade = project == "cascade_mask_rcnn"
    rpn = cfg.model.proposal_generator
    assert list(rpn.post_nms_topk) == ([2000, 1000] if cascade else [1000, 1000])
    assert rpn.smooth_l1_beta == (1 / 9 if cascade else 0.0)
    assert rpn.anchor_boundary_thresh == (0 if cascade else -1)
    predictors = parts(cfg.model, "box_predictor")
    losses = {(p.box_reg_loss_type, p.get("smooth_l1_beta", 0.0)) for p in predictors}
    assert losses == {("giou", 0.0) if cascade else ("smooth_l1", 0.0)}
    assert not any(predictor.cls_agnostic_bbox_reg for predictor in predictors)
    assert len(predictors) == (3 if cascade else 1)


def shrink(model_cfg):
    """Narrow layers, but all that there are."""
    model_cfg.backbone.bottom_up.update(embed_dim=16, num_heads=[1, 2, 4, 8])
    model_cfg.backbone.out_channels = 16
    model_cfg.proposal_generator.head.in_channels = 16
    model_cfg.proposal_generator.update(post_nms_topk=(40, 20))
    heads = model_cfg.roi_heads
    heads.update(num_classes=4, batch_size_per_image=16)
    for box_head in parts(model_cfg, "box_head"):
        box_head.input_shape.channels = 16
        box_head.conv_dims = [16] * len(box_head.conv_dims)
        box_head.fc_dims = [32] * len(box_head.fc_dims)
    for predictor in parts(model_cfg, "box_predictor"):
        predictor.input_shape.channels = 32
    for mask_head in parts(model_cfg, "mask_head"):
        mask_head.input_shape.channels = 16
        mask_head.conv_dims = [16] * len(mask_head.conv_dims)


@pytest.mark.parametrize("project, name, schedule", COCO_CASES)
def test_coco_configs_train_a_step(project, name, schedule, batch):
    """With narrow layers: the losses that it should have, and a gradient for every parameter."""
    cfg = load(project, f"{name}_{schedule}_coco")
    shrink(cfg.model)
    cfg.model.backbone.bottom_up.drop_path_rate = 0.0  # a block left out would have no gradient
    torch.manual_seed(0)
    model = instantiate(cfg.model).train()
    cfg.optimizer.params.model = model
    optimizer = instantiate(cfg.optimizer)
    inputs = batch if trains_masks(name) else [without_masks(item) for item in batch]
    with EventStorage():
        losses = model(inputs)
    stages = [f"_stage{stage}" for stage in range(3)] if project == "cascade_mask_rcnn" else [""]
    kinds = ["loss_cls", "loss_box_reg", *["loss_mask"] * trains_masks(name)]
    assert set(losses) == {"loss_rpn_cls", "loss_rpn_loc"} | {k + s for k in kinds for s in stages}
    total = sum(losses.values())
    assert torch.isfinite(total)
    total.backward()
    lacking = [name for name, p in model.named_parameters() if p.grad is None]
    assert not lacking
    before = model.backbone.bottom_up.patch_embed.proj.weight.clone()
    optimizer.step()
    assert not torch.equal(before, model.backbone.bottom_up.patch_embed.proj.weight)


def without_masks(item):
    instances = item["instances"]
    kept = type(instances)(instances.image_size)
    kept.gt_boxes, kept.gt_classes = instances.gt_boxes, instances.gt_classes
    return {**item, "instances": kept}


def test_training_augmentation_of_the_recipe(shapes):
    mapper = instantiate(load("mask_rcnn", "mask_rcnn_iwin_t_1x_coco").dataloader.train.mapper)
    picture = Path(shapes.train_images) / "large.jpg"
    Image.new("RGB", (640, 480)).save(picture)
    whole = {
        "bbox": [0.0, 0.0, 640.0, 480.0],  # some of it is in every crop
        "bbox_mode": BoxMode.XYXY_ABS,
        "category_id": 0,
        "segmentation": [[0.0, 0.0, 640.0, 0.0, 640.0, 480.0, 0.0, 480.0]],
    }
    record = {"file_name": str(picture), "height": 480, "width": 640, "image_id": 0}
    sides = set()
    for _ in range(60):
        mapped = mapper({**record, "annotations": [whole]})
        height, width = mapped["image"].shape[1:]
        assert max(height, width) <= 1333
        # recomputed from the polygon, which fills the picture
        assert mapped["instances"].gt_boxes.area().tolist() == pytest.approx([height * width])
        sides.add(min(height, width))
    # The long side of a narrow crop may keep the short one from reaching its goal.
    assert len(sides & set(range(480, 801, 32))) >= 6


@pytest.mark.parametrize("name", CUSTOM)
@pytest.mark.parametrize("project", FOLDERS)
def test_custom_configs_follow_the_json(project, name, paths):
    cfg = load(project, name, paths)
    full_sized = name in FULL_SIZED
    with torch.device("meta" if full_sized else "cpu"):
        model = instantiate(cfg.model)
    counts = {
        where: module.num_classes
        for where, module in model.roi_heads.named_modules()
        if hasattr(module, "num_classes")
    }
    assert set(counts.values()) == {4} and len(counts) > 1
    mask_heads = [m for m in model.roi_heads.modules() if type(m).__name__.startswith("MaskRCNN")]
    assert bool(mask_heads) is trains_masks(name)
    assert all(head.predictor.out_channels == 4 for head in mask_heads)
    cfg.dataloader.train.num_workers = cfg.dataloader.test.num_workers = 0
    batch = next(iter(instantiate(cfg.dataloader.train)))
    assert len(batch) == cfg.dataloader.train.total_batch_size
    assert all(item["instances"].has("gt_masks") is trains_masks(name) for item in batch)
    assert len(list(instantiate(cfg.dataloader.test))) == 2
    instantiate(cfg.dataloader.evaluator)
    cfg.optimizer.params.model = model
    instantiate(cfg.optimizer)
    if not full_sized:  # a step of those takes long
        with EventStorage():
            assert all(torch.isfinite(loss) for loss in model.train()(batch).values())


@pytest.mark.parametrize("project", FOLDERS)
def test_a_missing_path_is_named(project, paths, tmp_path):
    config = str(FOLDERS[project] / "custom_coco_small.py")
    arguments = ["--config-file", config, *paths[1:], f"train.output_dir={tmp_path}"]
    sentence = "^dataset.train_json is not set: add dataset.train_json=... to the command line.$"
    with pytest.raises(ConfigError, match=sentence):
        run_detection(default_argument_parser().parse_args(arguments))
