"""Files that do not fit: a sentence with what they are and what fits, and an untouched model."""

import collections
import pickle

import numpy as np
import pytest
import torch
from published_files import (
    CASCADE_T,
    MASK_RCNN_T,
    SMALL,
    TINY,
    UPERNET_T,
    VIDEO_T,
    build,
    classifier_file,
    copied,
    detector,
    detector_file,
    same_state,
    small_detector,
    state_dict,
)
from torch import nn

from iwin_d2.checkpoint import Checkpointer, load_pretrained
from iwin_d2.errors import CheckpointError
from iwin_d2.modeling import iwin_tiny


@pytest.fixture(scope="module")
def mask_rcnn():
    return detector("mask_rcnn", memory=True)


def save(path, content):
    torch.save(content, path)


# What is written, and what must be said of it when a Mask R-CNN T is to be loaded.
FILES = {
    "another detector": (
        lambda path: detector_file(path, CASCADE_T),
        "{path} is a Cascade Mask R-CNN on Iwin-T with 80 classes, the model a Mask R-CNN on "
        "Iwin-T with 80 classes: give weights of such a model, such as "
        "iwin_tiny_window7_mask_rcnn_1x_coco, or take its backbone alone with part=backbone "
        "(train.init_options.part).",
    ),
    "a segmenter": (
        lambda path: detector_file(path, UPERNET_T),
        "{path} is a UPerNet on Iwin-T with 150 classes, the model a Mask R-CNN on Iwin-T",
    ),
    "a video classifier": (
        lambda path: detector_file(path, VIDEO_T),
        "{path} is a video classifier on Iwin-T with 400 classes, the model a Mask R-CNN",
    ),
    "a detector of another size": (
        lambda path: detector_file(path, MASK_RCNN_T.replace("tiny", "small")),
        "{path} is a Mask R-CNN on Iwin-S with 80 classes, the model's backbone is Iwin-T: give "
        "weights of that size, such as iwin_tiny_window7_mask_rcnn_1x_coco, or build the model "
        "with embed_dim=96 and depths=[2, 2, 18, 2].",
    ),
    "a classifier of another size": (
        lambda path: classifier_file(path, SMALL),
        "{path} is an image classifier on Iwin-S with 1000 classes, the model's backbone is "
        "Iwin-T: give weights of that size, such as iwin_tiny_patch4_window7_224, or build",
    ),
    "other classes": (
        lambda path: detector_file(path, MASK_RCNN_T, **of_classes(3)),
        "{path} is a Mask R-CNN on Iwin-T with 3 classes, the model has 80 classes: set its number "
        "of classes to 3, or have new heads with classes=new",
    ),
    "a tensor is missing": (
        lambda path: detector_file(path, MASK_RCNN_T, rpn_head__rpn_conv__bias=None),
        "{path}, a Mask R-CNN on Iwin-T with 80 classes, does not fit the model: it lacks 1 of "
        "the model's 230 tensors (proposal_generator.rpn_head.conv.bias); give weights of a Mask "
        "R-CNN on Iwin-T with 80 classes, such as iwin_tiny_window7_mask_rcnn_1x_coco, or name "
        "what to pass over with leave_out (train.init_options.leave_out).",
    ),
    "tensors are too many": (
        lambda path: detector_file(path, MASK_RCNN_T, neck__extra__weight=[1], roi_head__x=[2]),
        "it has 2 that the model has not (neck.extra.weight, roi_head.x); give weights of",
    ),
    "a tensor of another shape": (
        lambda path: detector_file(
            path, MASK_RCNN_T, roi_head__bbox_head__shared_fcs__1__weight=[1024, 512]
        ),
        "it has 1 of other shapes (roi_heads.box_head.fc2.weight [1024, 512] instead of "
        "[1024, 1024])",
    ),
    "a tensor of the backbone is missing": (
        lambda path: classifier_file(path, TINY, patch_embed__norm__bias=None),
        "it lacks 1 of the model's 230 tensors (backbone.bottom_up.patch_embed.norm.bias)",
    ),
    "everything at once": (
        lambda path: detector_file(
            path, MASK_RCNN_T, rpn_head__rpn_conv__bias=None, neck__x=[1], backbone__norm3__bias=[5]
        ),
        "lacks 1 of the model's 230 tensors (proposal_generator.rpn_head.conv.bias) and has 1 "
        "that the model has not (neck.x) and has 1 of other shapes",
    ),
    "images of other channels": (
        lambda path: detector_file(
            path, MASK_RCNN_T, backbone__patch_embed__proj__weight=[96, 4, 4, 4]
        ),
        "{path} is of a model for images of 4 channels, this one is for 3: set in_chans=4, or",
    ),
    "no backbone": (
        lambda path: save(path, {"conv.weight": torch.zeros(3), "fc.bias": torch.zeros(1)}),
        "Nothing in {path} fits the model: the file has conv.weight, fc.bias, the model backbone.",
    ),
    "another transformer": (
        lambda path: save(
            path,
            {
                "model": {
                    "patch_embed.proj.weight": torch.zeros(96, 3, 4, 4),
                    "layers.0.blocks.0.attn.qkv.weight": torch.zeros(288, 96),
                    "layers.0.blocks.0.attn.relative_position_bias_table": torch.zeros(169, 3),
                }
            },
        ),
        "Nothing in {path} fits the model: the file has layers.0.blocks.0.attn.qkv.weight",
    ),
    "two models": (
        lambda path: save(path, {"model": state_dict(TINY), "state_dict": state_dict(TINY)}),
        "{path} holds the weights of two models, under the keys 'model' and 'state_dict'",
    ),
    "a tensor twice": (
        lambda path: save(
            path,
            {
                "state_dict": {
                    **state_dict(MASK_RCNN_T),
                    "roi_head.bbox_head.shared_fcs.00.weight": torch.zeros(1),
                }
            },
        ),
        "{path} holds roi_heads.box_head.fc1.weight twice, as roi_head.bbox_head.shared_fcs.0.",
    ),
    "no weights": (lambda path: save(path, {"state_dict": {}}), "{path} holds no model weights"),
    "tensors without values": (
        lambda path: save(path, {**state_dict(TINY), "norm.bias": torch.empty(9, device="meta")}),
        "{path} holds norm.bias as no plain tensor of numbers: save the model's state dict",
    ),
    "complex tensors": (
        lambda path: save(path, {"a.weight": torch.zeros(2, dtype=torch.complex64)}),
        "{path} holds a.weight as no plain tensor",
    ),
    "sparse tensors": (
        lambda path: save(path, {"a.weight": torch.eye(3).to_sparse()}),
        "{path} holds a.weight as no plain tensor",
    ),
    "a newer format": (
        lambda path: save(path, {"model": state_dict(TINY), "iwin_d2": {"format": 2}}),
        "{path} was written by a newer iwin_d2 (its format is 2, this version reads 1): update",
    ),
}


def of_classes(number):
    """The shapes of a Mask R-CNN's heads for other classes."""
    heads = {"bbox_head__fc_cls": number + 1, "bbox_head__fc_reg": 4 * number}
    return {
        **{f"roi_head__{name}__weight": [rows, 1024] for name, rows in heads.items()},
        **{f"roi_head__{name}__bias": [rows] for name, rows in heads.items()},
        "roi_head__mask_head__conv_logits__weight": [number, 256, 1, 1],
        "roi_head__mask_head__conv_logits__bias": [number],
    }


@pytest.fixture(scope="module")
def state(mask_rcnn):
    return copied(mask_rcnn)


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize("through", ["load_pretrained", "Checkpointer"])
@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_does_not_fit(tmp_path, mask_rcnn, state, kind, through):
    make, essential = FILES[kind]
    path = tmp_path / "file.pth"
    make(path)
    with pytest.raises(CheckpointError) as caught:
        if through == "Checkpointer":
            Checkpointer(mask_rcnn).load(str(path))
        else:
            load_pretrained(mask_rcnn, path)
    sentence = str(caught.value)
    assert essential.format(path=path) in sentence
    assert len(sentence.splitlines()) == 1 and len(sentence) < 600 and sentence.endswith(".")
    assert same_state(state, mask_rcnn.state_dict())


EVALUATED = {
    "a classifier": (
        classifier_file,
        "The weights in {path} do not fill the model: it is an image classifier on Iwin-T with "
        "1000 classes, and 50 of the model's 230 tensors would stay as they were made",
    ),
    "other classes": (
        lambda path: detector_file(path, MASK_RCNN_T, **of_classes(3)),
        "with 3 classes, the model has 80 classes: set its number of classes to 3.",
    ),
}


@pytest.mark.parametrize("kind", EVALUATED)
def test_what_leaves_something_as_it_was_is_not_evaluated(tmp_path, mask_rcnn, state, kind):
    make, essential = EVALUATED[kind]
    path = tmp_path / "file.pth"
    make(path)
    with pytest.raises(CheckpointError) as caught:
        Checkpointer(mask_rcnn).load(str(path), fill=True)
    assert essential.format(path=path) in str(caught.value)
    assert same_state(state, mask_rcnn.state_dict())


def test_an_optimizer_that_fails_leaves_the_model_as_it_was(tmp_path):
    saved, loaded = small_detector(), small_detector()
    optimizer = torch.optim.SGD(saved.parameters(), lr=1.0)
    Checkpointer(saved, str(tmp_path), optimizer=optimizer).save("model_0000001")
    before = copied(loaded)
    other = torch.optim.SGD(list(loaded.parameters())[:3], lr=1.0)
    with pytest.raises(CheckpointError, match="does not fit this training"):
        Checkpointer(loaded, str(tmp_path), optimizer=other).resume_or_load("", resume=True)
    assert same_state(before, loaded.state_dict())


def test_arrays_of_detectron2s_zoo(tmp_path):
    """Plain NumPy arrays in a pickle are weights; arrays of objects are not."""
    arrays = {k: v.contiguous().numpy() for k, v in state_dict(TINY).items()}
    content = {"model": collections.OrderedDict(arrays), "__author__": "somebody"}
    (tmp_path / "zoo.pkl").write_bytes(pickle.dumps(content))
    model = build(iwin_tiny)
    assert len(load_pretrained(model, tmp_path / "zoo.pkl").loaded) == 180
    content["model"]["norm.bias"] = np.array([None, "text"])
    (tmp_path / "zoo.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(CheckpointError, match=r"holds norm\.bias as no plain tensor"):
        load_pretrained(model, tmp_path / "zoo.pkl")


class Payload:
    def __reduce__(self):
        return (exec, ("import iwin_d2; iwin_d2.payload_ran = True",))


@pytest.mark.parametrize("place", ["model", "config", "meta", "optimizer"])
def test_nothing_in_a_file_is_run_wherever_it_lies(tmp_path, place):
    import iwin_d2

    torch.save({"model": state_dict(TINY), place: Payload()}, tmp_path / "bad.pth")
    model = build(iwin_tiny)
    before = copied(model)
    with pytest.raises(CheckpointError, match=r"bad\.pth holds \S*exec: .*could run code"):
        load_pretrained(model, tmp_path / "bad.pth")
    assert same_state(before, model.state_dict()) and not hasattr(iwin_d2, "payload_ran")


def test_names_that_would_take_much_memory_do_not(tmp_path):
    """Stages and blocks are counted by what is there, not up to the largest number."""
    names = {f"layers.{10**12}.blocks.{10**12}.norm1.weight": torch.zeros(1)}
    torch.save({**state_dict(TINY), **names}, tmp_path / "many.pth")
    with pytest.raises(CheckpointError, match=r"has 1 that the model has not \(layers\.10000"):
        load_pretrained(build(iwin_tiny), tmp_path / "many.pth")


def test_a_model_without_iwin_names_what_is_wrong(tmp_path):
    detector_file(tmp_path / "any.pth")
    with pytest.raises(CheckpointError, match=r"Nothing in .* a model without an Iwin backbone\."):
        load_pretrained(nn.Linear(1, 1), tmp_path / "any.pth")
