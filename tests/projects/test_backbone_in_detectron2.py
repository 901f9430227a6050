"""The backbone in another Detectron2 project: the example's own files, run on Detectron2."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from iwin_d2.d2.framework import USE_DETECTRON2
from iwin_d2.data.shapes import generate_shapes_dataset
from iwin_d2.modeling import IwinTransformer, add_iwin_config

pytestmark = pytest.mark.skipif(not USE_DETECTRON2, reason="this is for Detectron2 itself")
FOLDER = Path(__file__).resolve().parents[2] / "projects/backbone_in_detectron2"
# file: what Detectron2 calls the config that it comes from, keys of the model that differ
LAZY = {
    "mask_rcnn_iwin_t_fpn_1x": ("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.py", ()),
    "retinanet_iwin_t_fpn_1x": (
        "COCO-Detection/retinanet_R_50_FPN_1x.py",
        ("backbone.top_block.in_channels",),
    ),
    "fcos_iwin_t_fpn_1x": ("COCO-Detection/fcos_R_50_FPN_1x.py", ()),
    "panoptic_fpn_iwin_t_1x": ("COCO-PanopticSegmentation/panoptic_fpn_R_50_1x.py", ()),
}
# Of Detectron2's own yacs configs, which no key but the backbone's is changed of: the builder.
YACS = {
    "COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml": "build_iwin_fpn_backbone",
    "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml": "build_iwin_fpn_backbone",
    "Misc/cascade_mask_rcnn_R_50_FPN_1x.yaml": "build_iwin_fpn_backbone",
    "COCO-PanopticSegmentation/panoptic_fpn_R_50_1x.yaml": "build_iwin_fpn_backbone",
    "COCO-Detection/retinanet_R_50_FPN_1x.yaml": "build_retinanet_iwin_fpn_backbone",
}


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "shapes"
    return generate_shapes_dataset(root, num_train=4, num_val=2, image_size=(96, 128))


@pytest.fixture(scope="module")
def datasets(shapes):
    """The shapes, registered as a project of Detectron2 does it."""
    from detectron2.data import DatasetCatalog, MetadataCatalog
    from detectron2.data.datasets import register_coco_instances

    names = ("example_train", "example_val")
    for name, part in zip(names, ("train", "val")):
        register_coco_instances(
            name, {}, getattr(shapes, f"{part}_json"), getattr(shapes, f"{part}_images")
        )
    yield names
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def load(name):
    from detectron2.config import LazyConfig

    return LazyConfig.load(str(FOLDER / f"{name}.py"))


def test_it_is_a_backbone_of_detectron2_and_registered():
    from detectron2.modeling import BACKBONE_REGISTRY, Backbone

    assert issubclass(IwinTransformer, Backbone)
    for name in ("iwin", "iwin_fpn", "retinanet_iwin_fpn"):
        assert f"build_{name}_backbone" in BACKBONE_REGISTRY


def flat(config, path=""):
    """{dotted key: value} of a config."""
    items = config.items() if isinstance(config, dict) else enumerate(config)
    found = {}
    for key, value in items:
        nested = isinstance(value, (dict, list)) and value
        found.update(flat(value, f"{path}{key}.") if nested else {f"{path}{key}": value})
    return found


@pytest.mark.parametrize("name", LAZY)
def test_only_the_backbone_differs_from_detectron2s_own(name):
    from detectron2 import model_zoo

    original, also = LAZY[name]
    ours, theirs = (
        flat(OmegaConf.to_container(cfg.model, resolve=False))
        for cfg in (load(name), model_zoo.get_config(original))
    )
    differ = {key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)}
    inside = {key for key in differ if key.startswith("backbone.bottom_up.")}
    # Detectron2's FCOS alone is not told the order of the channels.
    images = {"pixel_mean", "pixel_std"} | ({"input_format"} & theirs.keys())
    assert {key.split(".")[0] for key in differ - inside - set(also)} == images
    assert inside and set(also) <= differ


def check_trains_and_detects(model, batch):
    """One step that reaches every weight, then an evaluation."""
    from detectron2.utils.events import EventStorage

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    weights = dict(model.backbone.bottom_up.named_parameters())
    before = {name: p.detach().clone() for name, p in weights.items() if p.requires_grad}
    model.train()
    with EventStorage():
        losses = model(batch)
    assert losses and all(torch.isfinite(loss) for loss in losses.values())
    sum(losses.values()).backward()
    optimizer.step()
    for name, value in before.items():
        assert (weights[name] != value).any(), name
    model.eval()
    with torch.no_grad():
        results = model(batch)
    for record, result in zip(batch, results, strict=True):
        size = (record["height"], record["width"])
        assert result["instances"].image_size == size
        if "sem_seg" in record:
            assert result["sem_seg"].shape[1:] == result["panoptic_seg"][0].shape == size


def with_stuff(batch, num_classes):
    """The batch with a class of stuff for every pixel, as panoptic models want it."""
    generator = torch.Generator().manual_seed(0)
    for record in batch:
        size = record["image"].shape[1:]
        record["sem_seg"] = torch.randint(0, num_classes, size, generator=generator)
    return batch


@pytest.mark.parametrize("name", LAZY)
def test_lazy_configs_train_and_detect(name, datasets):
    from detectron2.config import instantiate

    cfg = load(name)
    cfg.model.get("roi_heads", cfg.model).num_classes = 4
    cfg.model.backbone.bottom_up.drop_path_rate = 0.0  # a block left out would learn nothing
    if "roi_heads" in cfg.model:
        cfg.model.roi_heads.batch_size_per_image = 32
        cfg.model.proposal_generator.post_nms_topk = [100, 50]
    train = cfg.dataloader.train
    train.dataset.names = datasets[0]
    train.update(total_batch_size=2, num_workers=0)
    train.mapper.augmentations = []
    train.mapper.instance_mask_format = "bitmask"
    batch = next(iter(instantiate(train)))
    if "sem_seg_head" in cfg.model:
        with_stuff(batch, cfg.model.sem_seg_head.num_classes)
    torch.manual_seed(0)
    check_trains_and_detects(instantiate(cfg.model), batch)


@pytest.mark.parametrize("name", YACS)
def test_yacs_configs_of_detectron2_train_and_detect(name, datasets):
    from detectron2 import model_zoo
    from detectron2.config import get_cfg
    from detectron2.data import DatasetMapper, get_detection_dataset_dicts
    from detectron2.modeling import build_model

    cfg = get_cfg()
    add_iwin_config(cfg)
    cfg.merge_from_file(model_zoo.get_config_file(name))
    cfg.MODEL.BACKBONE.NAME = YACS[name]
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = 32
    cfg.MODEL.RPN.POST_NMS_TOPK_TRAIN, cfg.MODEL.RPN.POST_NMS_TOPK_TEST = 100, 50
    narrow = ["EMBED_DIM", 16, "NUM_HEADS", [1, 2, 4, 8], "DEPTHS", [1, 1, 1, 1]]
    cfg.MODEL.IWIN.merge_from_list(narrow)
    torch.manual_seed(0)
    model = build_model(cfg)
    # The default of MODEL.BACKBONE.FREEZE_AT, 2, holds as for a ResNet; what has a map learns.
    bottom_up = model.backbone.bottom_up
    assert list(bottom_up.out_features) == cfg.MODEL.FPN.IN_FEATURES
    frozen = [p for part in (bottom_up.patch_embed, bottom_up.layers[0]) for p in part.parameters()]
    assert not any(p.requires_grad for p in frozen)
    assert all(p.requires_grad for p in bottom_up.layers[1:].parameters())

    mapper = DatasetMapper(
        is_train=True,
        augmentations=[],
        image_format=cfg.INPUT.FORMAT,
        use_instance_mask=cfg.MODEL.MASK_ON,
        instance_mask_format="bitmask",
    )
    batch = [mapper(record) for record in get_detection_dataset_dicts(datasets[0])[:2]]
    if "Panoptic" in cfg.MODEL.META_ARCHITECTURE:
        with_stuff(batch, cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES)
    check_trains_and_detects(model, batch)


def test_yacs_config_trains_and_evaluates_with_the_example_script(datasets, tmp_path):
    spec = importlib.util.spec_from_file_location("example_train_net", FOLDER / "train_net.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    settings = {
        "DATASETS.TRAIN": (datasets[0],),
        "DATASETS.TEST": (datasets[1],),
        "DATALOADER.NUM_WORKERS": 0,
        "INPUT.MASK_FORMAT": "bitmask",
        "INPUT.MIN_SIZE_TRAIN": (96,),
        "INPUT.MIN_SIZE_TEST": 96,
        "MODEL.DEVICE": "cpu",
        "MODEL.ROI_HEADS.NUM_CLASSES": 4,
        "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 32,
        "MODEL.RPN.POST_NMS_TOPK_TEST": 20,
        "SOLVER.IMS_PER_BATCH": 2,
        "SOLVER.MAX_ITER": 2,
        "SOLVER.STEPS": (),
        "OUTPUT_DIR": str(tmp_path),
    }
    opts = [str(item) for pair in settings.items() for item in pair]
    file = str(FOLDER / "mask_rcnn_iwin_t_fpn_1x.yaml")
    args = script.default_argument_parser().parse_args(["--config-file", file, *opts])
    script.main(args)
    rows = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    names = set().union(*rows)
    assert {"loss_cls", "loss_box_reg", "loss_mask", "loss_rpn_cls", "bbox/AP"} <= names
    assert (tmp_path / "inference" / "coco_instances_results.json").is_file()
    state = torch.load(tmp_path / "model_final.pth", weights_only=True)["model"]
    assert state["backbone.bottom_up.patch_embed.proj.weight"].shape == (96, 3, 4, 4)
