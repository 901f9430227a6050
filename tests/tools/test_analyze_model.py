"""tools/analyze_model.py, run as from a command line."""

import importlib.util
from pathlib import Path

import pytest

from iwin_d2.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "analyze_model.py"
NAME = "mask_rcnn/mask_rcnn_iwin_t_1x_coco"
QUICK = (
    "--size=32x64",
    "model.backbone.bottom_up.embed_dim=16",
    "model.backbone.bottom_up.depths=[1,1,1,1]",
    "model.backbone.bottom_up.num_heads=[1,2,4,8]",
    "model.proposal_generator.post_nms_topk=[9,9]",
    "model.roi_heads.num_classes=3",
    "model.roi_heads.box_predictor.test_topk_per_image=5",
)


@pytest.fixture(scope="module")
def main():
    spec = importlib.util.spec_from_file_location("tool_analyze_model", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def rows(text):
    """The table's rows by their first cell."""
    lines = [line.strip("| ").replace(" | ", " ").split() for line in text.splitlines()]
    return {words[0].strip("`"): words[1:] for words in lines if words}


def test_the_modules_of_a_model_of_the_zoo(main, capsys):
    main([NAME, *QUICK])
    out = capsys.readouterr().out
    found = rows(out)
    assert found["roi_heads"][0] == "StandardROIHeads" and "rpn_head" in found
    parts = ("backbone", "proposal_generator", "roi_heads")
    numbers = {name: int(found[name][1].replace(",", "")) for name in (*parts, "(all)")}
    assert numbers["(all)"] == sum(numbers[part] for part in parts)
    assert "32 x 64 pixels (height x width), 9 proposals and 5 detections" in out


def test_a_config_file_and_overrides_between_flags(main, capsys):
    file = str(ROOT / "projects/mask_rcnn/configs/custom_coco_small_boxes.py")
    main(["model.roi_heads.num_classes=3", file, "--depth", "1", "--size", "64x64"])
    found = rows(capsys.readouterr().out)
    assert "backbone" in found and "bottom_up" not in found and "mask_head" not in found


def test_a_segmenter(main, capsys):
    file = str(ROOT / "configs/common/models/upernet_iwin.py")
    small = ["embed_dim=16", "depths=[1,1,1,1]", "num_heads=[1,2,4,8]"]
    main([file, "--size=32x64", *(f"model.backbone.{text}" for text in small)])
    found = rows(capsys.readouterr().out)
    assert found["sem_seg_head"][0] == "UPerNetHead" and "fpn_bottleneck" in found
    assert found["pyramid_pooling"][0] == "PyramidPooling"


def test_several_models_a_row_each(main, capsys):
    boxes = "mask_rcnn/faster_rcnn_iwin_t_1x_coco.py"
    main([NAME, boxes, *QUICK])
    found = rows(capsys.readouterr().out)
    assert found[NAME][0] > found[boxes][0] and float(found[NAME][1]) > float(found[boxes][1])


def test_published_classifiers_by_name(main, capsys):
    image, video = "iwin_tiny_patch4_window7_224", "iwin_tiny_patch244_window77_kinetics400_1k"
    main([image, "--depth", "1"])
    out = capsys.readouterr().out
    assert "One image of 224 x 224 pixels" in out and rows(out)["head"][:2] == ["Linear", "769,000"]
    assert float(rows(out)["(all)"][2]) == 4.72
    main([video, "--size", "32x32", "--frames", "2"])
    assert "One clip of 2 frames of 32 x 32 pixels" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["mask_rcnn/mask_rcnn_iwin_t_1x_cocoo"], rf"there is no model .* Did you mean {NAME}"),
        (["mask_rcnn/custom_coco"], r"dataset\.train_json is not set: add .*num_classes=NUMBER"),
        ([str(ROOT / "README.md")], r"config file .*README\.md"),
        ([str(ROOT / "configs/common/train.py")], r"train\.py has no model: give"),
        ([NAME, "model.backbone.out_chanels=8"], r"Did you mean model\.backbone\.out_channels\?"),
        ([NAME, *QUICK, "model.backbone.out_channels=8"], r"rpn_head\.conv cannot take"),
        (
            ["iwin_tiny_patch4_window7_224", "model.depths=[1,1,1,1]"],
            "overrides nothing: iwin_tiny",
        ),
        (
            ["iwin_tiny_patch244_window77_kinetics400_1k", "--frames=1"],
            "model part backbone cannot take what it is given .*at least 2 frames",
        ),
        ([NAME, "--device", "abacus"], r"abacus is no device of this machine"),
    ],
)
def test_bad_input_is_one_sentence(main, arguments, sentence):
    with pytest.raises(ConfigError, match=sentence) as caught:
        main(arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "arguments, complaint",
    [
        ([], "the following arguments are required: MODEL"),
        (["a.b=c"], "no model is named"),
        ([NAME, "--size", "800"], "800 is no size such as 800x1280, height first"),
        ([NAME, "--size", "0x64"], "0x64 is no size"),
        ([NAME, "--depth", "-1"], "-1 is not a number of at least 0"),
    ],
)
def test_bad_command_lines(main, capsys, arguments, complaint):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2 and complaint in capsys.readouterr().err
