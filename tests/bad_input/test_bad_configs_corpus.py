"""Bad configs and overrides: each ends in one sentence before the first step, with the place."""

import pytest
from bad_input import CONFIGS, assert_says

from iwin_d2.d2.framework import USE_DETECTRON2

LAZY = "from iwin_d2.d2.config import LazyCall as L\n"
PARTS = "a config for this tool has model, dataloader, optimizer, lr_multiplier and train"

# The content of a config file (None: there is none), and what must be said of it.
FILES = {
    "missing.py": (None, ("config file {path} does not exist", "check the path")),
    "folder.py": (b"", ("config file {path} is not a file", "check the path")),
    "config.json": (b"{}", ("config file {path}", "py")),
    "empty.py": (b"", ("config file {path} defines no parts", PARTS)),
    "syntax.py": (b"model = (\n", ("config file {path}, line 1", "'(' was never closed")),
    "prose.py": (b"this is no python\n", ("config file {path}, line 1", "invalid syntax")),
    "null.py": (b"model = \0\n", ("config file {path}", "null bytes")),
    "raises.py": (b"\nraise ValueError('boom')\n", ("config file {path}, line 2", "boom")),
    "divides.py": (b"model = 1 / 0\n", ("{path}, line 1", "ZeroDivisionError: division by zero")),
    "name.py": (b"model = L(x)\n", ("config file {path}, line 1", "name 'L' is not defined")),
    "attribute.py": (b"import torch\ntorch.nn.Linea\n", ("{path}, line 2", "no attribute 'Linea'")),
    "key.py": (b"x = {}\nx['a']['b'] = 1\n", ("{path}, line 2", "KeyError: 'a'")),
    "package.py": (b"import no_such_package\n", ("{path}, line 1", "'no_such_package'")),
    "class.py": (
        b"from iwin_d2.modeling import Iwinn\n",
        ("{path}, line 1", "import name 'Iwinn'"),
    ),
    "relative.py": (b"from .gone import model\n", ("{path}, line 1", "gone.py")),
    "itself.py": (b"from .itself import model\n", ("{path}, line 1", "RecursionError")),
    "call.py": (LAZY.encode() + b"model = L(3)(a=1)\n", ("{path}, line 2", "call")),
    "no_model.py": (
        b"train = {'output_dir': 'out', 'device': 'cpu'}\ndataloader = {}\n",
        ("{path} has no model", PARTS),
    ),
    "number.py": (b"model = 3\ntrain = {}\n", ("{path} has no model", PARTS)),
    "yacs.yaml": (
        b"MODEL:\n  META_ARCHITECTURE: GeneralizedRCNN\nSOLVER:\n  BASE_LR: 0.1\n",
        ("config file {path} is one of Detectron2's older kind", "not a lazy config", PARTS),
    ),
    "broken.yaml": (b"a: [1, 2\n", ("config file {path}", "line 1, column 4", "expected ',' or")),
    "list.yaml": (b"- 1\n- 2\n", ("config file {path} defines no parts", PARTS)),
    "empty.yaml": (b"", ("config file {path}", "parts" if USE_DETECTRON2 else "no mapping")),
}


@pytest.mark.parametrize("name", FILES)
def test_a_bad_config_file(tmp_path, run_badly, name):
    content, essentials = FILES[name]
    path = tmp_path / name
    if name == "folder.py":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    assert_says(run_badly("lazyconfig_train_net", "--config-file", path), essentials, path=path)


@pytest.mark.skipif(USE_DETECTRON2, reason="Detectron2 reads yaml with an unsafe loader")
def test_a_yaml_that_would_run_code(tmp_path, run_badly):
    path = tmp_path / "config.yaml"
    path.write_text(f"model: !!python/object/apply:os.mkdir ['{tmp_path}/made']\n")
    sentence = run_badly("lazyconfig_train_net", "--config-file", path)
    assert_says(sentence, ("{path} is not valid yaml", "os.mkdir"), path=path)
    assert not (tmp_path / "made").exists()


SET = "makes no sense: set it to"

# Overrides of a good config, and what must be said of them.
VALUES = {
    # keys
    "train.max_itr=5": ("unknown config key train.max_itr", "Did you mean train.max_iter?"),
    "modle.num_classes=5": ("unknown config key modle", "Did you mean model.num_classes"),
    "+train.max_itr=5": ("sets train.max_itr, which nothing reads", "Did you mean train.max_iter?"),
    "dataloader.train.mapper.augmentations.9.prob=1": ("is a list of 2", "numbered from 0"),
    "train.seed.value=1": ("train.seed is", "has no keys", "set train.seed itself"),
    "optimizer.lr=${": ("'optimizer.lr=${'", "not a reference such as", "check its braces"),
    "optimizer.lr=[1": ("'[1'", "check its brackets"),
    # parts that are missing
    "model=None": ("has no model", PARTS),
    "model=3": ("has no model", PARTS),
    "optimizer=None": ("has no optimizer", PARTS),
    "optimizer.params=None": ("optimizer.params is no call", "get_param_groups"),
    "lr_multiplier=None": ("has no lr_multiplier", PARTS),
    "train=5": ("has no train", PARTS),
    "train.max_iter=None": ("has no train.max_iter", PARTS),
    "train.max_iter=???": ("train.max_iter is not set", "add train.max_iter=..."),
    "dataset.train_json=???": ("dataset.train_json is not set", "add dataset.train_json=..."),
    "dataset.test_json=???": ("dataset.test_json is not set", "add dataset.test_json=..."),
    # the train section
    "train.max_iter=ten": (f"train.max_iter=ten {SET} a whole number, 1 or more",),
    "train.max_iter=-5": (f"train.max_iter=-5 {SET} a whole number, 1 or more",),
    "train.max_iter=1.5": (f"train.max_iter=1.5 {SET} a whole number, 1 or more",),
    "train.eval_period=often": (f"train.eval_period=often {SET} a whole number",),
    "train.log_period=0": (f"train.log_period=0 {SET} a whole number, 1 or more",),
    "train.checkpointer.period=0": (f"train.checkpointer.period=0 {SET} a whole number, 1",),
    "train.checkpointer.max_to_keep=0": (f"train.checkpointer.max_to_keep=0 {SET} a whole",),
    "train.seed=abc": (f"train.seed=abc {SET} a whole number",),
    "train.device=quantum": ("train.device=quantum is no device", "set it to cuda or cpu"),
    "train.device=meta": ("train.device=meta is no device", "set it to cuda or cpu"),
    "train.amp=true": (f"train.amp=True {SET}", "set train.amp.enabled alone"),
    "train.amp.dtype=float31": (f"train.amp.dtype=float31 {SET} float16",),
    "train.ema={enabled: true, decay: 1.5}": (f"train.ema.decay=1.5 {SET} a number between 0",),
    "train.accumulation_steps=0": (f"train.accumulation_steps=0 {SET} a whole number, 1",),
    "train.clip_grad=0": (f"train.clip_grad=0 {SET} a number above 0",),
    "train.best_checkpoint.mode=best": (f"train.best_checkpoint.mode=best {SET} max or min",),
    "train.test_time_augmentation={enabled: true, scales: [1, big]}": (
        f"train.test_time_augmentation.scales=[1, 'big'] {SET} a list of numbers above 0",
    ),
    "train.test_time_augmentation.enabled=true": (
        "two-stage detectors",
        "the model is a TinyDetector",
        "set train.test_time_augmentation.enabled=False",
    ),
    "train.output_dir=''": (f"train.output_dir='' {SET} a folder",),
    "train.output_dir=3": (f"train.output_dir=3 {SET}",),
    "train.output_dir='a\\0b'": ("output folder", "cannot be used", "set train.output_dir"),
    "train.init_checkpoint=5": (f"train.init_checkpoint=5 {SET}",),
    # references
    "train.max_iter=${nowhere}": ("train.max_iter", "'nowhere' not found", "correct it"),
    "optimizer.lr=${train.no_such}": ("optimizer.lr", "'train.no_such' not found", "correct it"),
    "optimizer.lr=${optimizer.lr}": ("optimizer.lr", "Recursive", "correct it"),
    # the optimizer and its schedule
    "optimizer.lr=-1": ("optimizer cannot be built", "learning rate: -1", "override"),
    "optimizer.lr=fast": ("optimizer cannot be built", "AdamW(lr='fast'", "override"),
    "optimizer._target_=torch.optim.AdamV": ("optimizer", "'torch.optim.AdamV'"),
    "optimizer._target_=math.pi": ("optimizer", "call"),
    "optimizer._target_=torch.optim.SGD": ("optimizer", "SGD", "'betas'"),
    "lr_multiplier.scheduler=3": ("lr_multiplier cannot be built", "scheduler=3"),
    "lr_multiplier.warmup_method=cubic": ("lr_multiplier cannot be built", "cubic"),
    # loading
    "dataloader.train.total_batch_size=0": ("dataloader.train.total_batch_size=0", SET),
    "dataloader.train.total_batch_size=all": ("dataloader.train.total_batch_size=all", SET),
    "dataloader.train.num_workers=-1": ("dataloader.train.num_workers=-1", SET),
    "dataloader.test.num_workers=1.5": ("dataloader.test.num_workers=1.5", SET),
    "dataloader.train.max_bad_images=-1": ("dataloader.train.max_bad_images=-1", SET),
    "dataloader.train.prefetch_factor=2": ("dataloader.train.prefetch_factor=2", "set it to None"),
    "dataloader.train.dataset=None": ("dataloader.train cannot be built", "dataset=None"),
    "dataloader.train.dataset.names=nobody": ("'nobody'", "not registered"),
    "dataloader.test.dataset.names=nobody": ("'nobody'", "not registered"),
    "dataloader.evaluator.dataset_name=nobody": ("'nobody'",),
    "dataloader.test=None": ("dataloader.", "test.dataset.names", "correct it"),
    "dataloader.train.mapper.augmentations=None": ("dataloader.train.mapper cannot be built",),
    "dataloader.train.mapper.augmentations.1.sample_style=best": (
        "dataloader.train.mapper.augmentations.1 cannot be built",
        "sample_style='best'",
    ),
    "dataset.train_json=None": ("model.num_classes cannot be built", "dataset.train_json"),
    "train={val_loss_period: 1}": ("train.val_loss_period is set", "no dataloader.val_loss"),
    # the model
    "model._target_=iwin_d2.no.such": ("model", "'iwin_d2.no"),
    "+model.colour=red": ("model", "TinyDetector", "'colour'"),
    "model.num_classes=-1": ("model cannot be built", "TinyDetector(num_classes=-1)"),
    "model.num_classes=${no.where}": ("model.num_classes", "'no.where' not found"),
}


@pytest.mark.parametrize("override", VALUES)
def test_a_bad_value(train_badly, override):
    further = ["dataloader.val_loss=None"] if "val_loss" in override else []
    assert_says(train_badly(override, *further), VALUES[override])


# Overrides whose fault shows with the first image.
MAPPED = {
    "dataloader.train.mapper.image_format=XYZ": ("cannot be prepared", "mode"),
    "dataloader.train.mapper.instance_mask_format=blob": ("cannot be prepared", "blob"),
    "dataloader.train.mapper.augmentations.1.short_edge_length=x": ("cannot be prepared",),
}


@pytest.mark.parametrize("override", MAPPED)
def test_a_mapper_that_fails_on_an_image(train_badly, override):
    assert_says(
        train_badly(override, before_training=False),
        ("image id ", ".jpg", *MAPPED[override], ".mapper"),
    )


def test_an_output_folder_that_is_a_file(data, train_badly):
    data.output.write_text("mine")
    essentials = ("output folder", "{path}", "File exists", "set train.output_dir to a folder")
    assert_says(train_badly(), essentials, path=data.output)
    assert data.output.read_text() == "mine"


SMALL = [
    "model.backbone.bottom_up.embed_dim=8",
    "model.backbone.bottom_up.num_heads=[1,1,1,1]",
    "dataloader.train.num_workers=0",
    "dataloader.train.total_batch_size=2",
    "dataloader.test.num_workers=0",
    "train.max_iter=1",
    "train.device=cpu",
]
BOTTOM_UP = "model.backbone.bottom_up"
BUILT = f"{BOTTOM_UP} cannot be built"
CLASSES = ("has 2: set model.roi_heads.num_classes=2",)

# Overrides of the cascade that do not fit together, and what must be said of them.
CASCADE = {
    f"{BOTTOM_UP}.num_heads=[3,1,1,1]": (BUILT, "8 channels cannot be split into 3 heads"),
    f"{BOTTOM_UP}.embed_dim=wide": (BUILT, "embed_dim='wide'"),
    f"{BOTTOM_UP}.depths=[1,1,1]": (BUILT, "expected four stages", "depths=(1, 1, 1)"),
    f"{BOTTOM_UP}.freeze_at=9": (BUILT, "freeze_at must lie between 0 and 5, got 9"),
    f"{BOTTOM_UP}.out_features=[res9]": (BUILT, "out_features must be some of", "res9"),
    f"{BOTTOM_UP}.drop_path_rate=-1": (BUILT, "drop_path_rate", "-1"),
    f"{BOTTOM_UP}.windowsize=7": ("unknown config key", f"Did you mean {BOTTOM_UP}.window_size?"),
    "model.backbone.in_features=[res2,res9]": ("model.backbone cannot be built", "FPN(", "'res9'"),
    "model.pixel_mean=[1]": ("model cannot be built", "GeneralizedRCNN(pixel_mean=[1]"),
    "model.roi_heads.stage_loss_weights=[1]": ("model.roi_heads cannot be built", "one entry a"),
    "model.proposal_generator.pre_nms_topk=5": ("model.proposal_generator", "pre_nms_topk=5"),
    "model.roi_heads.box_heads.0.conv_norm=XN": ("model cannot be built", "XN", "ConvFCHead"),
    "model.roi_heads.num_classes=3": ("model.roi_heads is made for 3 classes", *CLASSES),
    "model.roi_heads.num_classes=1": ("model.roi_heads is made for 1 classes", *CLASSES),
    "model.roi_heads.box_predictors.1.num_classes=5": ("predictor.1 is made for 5", *CLASSES),
    "dataloader.train.mapper.use_instance_mask=False": (
        "dataloader.train.mapper cannot be built",
        "recompute_boxes",
    ),
}


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.parametrize("override", CASCADE)
def test_a_cascade_that_cannot_be_built(train_badly, override):
    sentence = train_badly(*SMALL, override, config=CONFIGS / "quickstart.py")
    assert_says(sentence, CASCADE[override])


# What shows when the first batch goes through the model: the part that it fails in.
MISFITS = {
    f"{BOTTOM_UP}.window_size=0": ("backbone.bottom_up", "window_size", "got 0"),
    f"{BOTTOM_UP}.in_chans=4": ("backbone.bottom_up", "[B, 4, H, W]"),
    "model.proposal_generator.in_features=[p9]": ("proposal_generator", "'p9'"),
    "model.roi_heads.box_in_features=[p9]": ("roi_heads", "'p9'"),
    "model.backbone.out_channels=7": ("proposal_generator.rpn_head.conv", "7 channels"),
    "model.roi_heads.box_predictors.0.input_shape.channels=9": ("roi_heads.box_predictor.0", "9x3"),
}


@pytest.mark.parametrize("override", MISFITS)
def test_a_cascade_whose_parts_do_not_fit(train_badly, override):
    sentence = train_badly(
        *SMALL, override, config=CONFIGS / "quickstart.py", before_training=False
    )
    assert_says(sentence, ("model part", "cannot take", *MISFITS[override], "config's model"))


def test_a_config_saved_by_a_run_is_a_good_one(data, train_well, train_badly):
    train_well()
    saved = data.output / "config.yaml"
    train_well(config=saved)
    assert_says(train_badly("train.max_itr=5", config=saved), VALUES["train.max_itr=5"])


def test_every_value_is_refused_for_an_evaluation_too(train_badly):
    for override in ("train.seed=abc", "train.amp=true", "dataloader.test.num_workers=-1"):
        assert_says(train_badly("--eval-only", override), ("makes no sense",))
    assert_says(
        train_badly("--eval-only", "dataloader.evaluator=None"), ("no dataloader.evaluator",)
    )
