"""What a model holds and does, against hand counts, PyTorch's counter and Detectron2's own."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from iwin_d2 import model_zoo
from iwin_d2.analysis import analyze
from iwin_d2.d2.framework import USE_DETECTRON2
from iwin_d2.errors import ConfigError
from iwin_d2.ops import extension, use_backend

MASK_RCNN = "mask_rcnn/mask_rcnn_iwin_t_1x_coco"
CASCADE = "cascade_mask_rcnn/cascade_mask_rcnn_iwin_t_1x_coco"
SIZE = (64, 96)
# Few boxes, for time's sake: what the heads do does not depend on the image's size.
FEW = {
    MASK_RCNN: [
        "model.proposal_generator.post_nms_topk=[12,12]",
        "model.roi_heads.box_predictor.test_topk_per_image=5",
    ],
    CASCADE: [
        "model.proposal_generator.post_nms_topk=[12,12]",
        "model.roi_heads.box_predictors.2.test_topk_per_image=5",
    ],
}
SMALL = [
    "model.backbone.bottom_up.embed_dim=16",
    "model.backbone.bottom_up.depths=[1,1,1,1]",
    "model.backbone.bottom_up.num_heads=[1,2,4,8]",
]


def make(name=MASK_RCNN, *overrides):
    return model_zoo.get(name, device="cpu", overrides=[*FEW[name], *overrides])


@pytest.fixture(scope="module")
def detector():
    return make()


@pytest.fixture(scope="module")
def analysis(detector):
    return analyze(detector, SIZE)


def by_name(analysis):
    return {module.name: module for module in analysis.modules}


class Plain(nn.Module):
    """A model of which everything can be counted by hand."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False)
        self.norm = nn.LayerNorm(4)
        self.fc = nn.Linear(4, 5)
        self.tied = self.fc
        self.fc.requires_grad_(False)

    def forward(self, batch):
        x = self.conv(batch[0]["image"][None]).relu()
        x = self.norm(self.depthwise(x).flatten(2).transpose(1, 2))  # [1, H * W / 4, 4]
        x = nn.functional.scaled_dot_product_attention(x, x, x)
        return [{"scores": self.fc(x), "gram": x @ x.transpose(1, 2)}]


def test_counts_by_hand():
    found = analyze(Plain(), (8, 12))
    tokens = 4 * 6
    modules = by_name(found)
    conv, attention, gram = tokens * 27 * 4, 2 * tokens**2 * 4, tokens**2 * 4
    assert modules["conv"].multiply_adds == conv
    assert modules["depthwise"].multiply_adds == tokens * 9 * 4
    assert modules["fc"].multiply_adds == tokens * 4 * 5
    assert found.total.multiply_adds == (conv + tokens * 9 * 4 + tokens * 4 * 5 + attention + gram)
    assert found.attention == attention
    # The results of both convolutions, attention, linear layer and product.
    assert found.total.activations == tokens * (4 + 4 + 4 + 5) + tokens**2
    # The bias of the first convolution, ReLU, and two an element for the norm.
    assert found.elementwise == tokens * 4 * (1 + 1 + 2)
    # A shared parameter counts once, a frozen one does count.
    assert found.total.parameters == 27 * 4 + 4 + 9 * 4 + 8 + 25
    assert (found.proposals, found.detections) == (None, None)
    assert [module.kind for module in found.modules[:2]] == ["Plain", "Conv2d"]


@pytest.mark.parametrize("backend", ["reference", "compiled"])
@pytest.mark.parametrize("gradients", [False, True])
def test_the_backbone_has_the_flops_that_pytorch_counts(detector, analysis, backend, gradients):
    """With compiled operators, whole blocks or parts, by the formulas registered for them."""
    if backend == "compiled" and not extension.loaded():
        pytest.skip(f"no compiled operators: {extension.reason()}")
    image = torch.randn(1, 3, *SIZE)
    grad = torch.set_grad_enabled(gradients)
    with use_backend(backend), grad, FlopCounterMode(display=False) as counter:
        detector.backbone(image)
    assert counter.get_total_flops() == 2 * by_name(analysis)["backbone"].multiply_adds


def test_a_whole_detector_has_the_flops_that_pytorch_counts(analysis):
    """All but the mask head, which few detections reach."""
    model = make(MASK_RCNN, *[f"model.roi_heads.mask_{x}=None" for x in ("in_features", "head")])
    model.eval().proposal_generator.nms_thresh = 1.0
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model([{"image": torch.zeros(3, *SIZE)}])
    masks = by_name(analysis)["roi_heads.mask_head"].multiply_adds
    assert counter.get_total_flops() == 2 * (analysis.total.multiply_adds - masks)


def test_the_tree_adds_up(analysis):
    modules = by_name(analysis)
    parts = ("backbone", "proposal_generator", "roi_heads")
    for what in ("parameters", "multiply_adds", "activations"):
        assert getattr(analysis.total, what) == sum(getattr(modules[p], what) for p in parts) > 0
    blocks = [m for name, m in modules.items() if name.count(".") == 5 and ".blocks." in name]
    assert len(blocks) == 12 and all(block.multiply_adds > 0 for block in blocks)
    within = ("attn", "mlp", "dwconv")
    first = "backbone.bottom_up.layers.0.blocks.0"
    inner = sum(modules[f"{first}.{part}"].multiply_adds for part in within)
    assert modules[first].multiply_adds == inner


def test_modules_down_to_a_depth(analysis):
    top = analysis.down_to(1)
    assert [m.name for m in top] == ["", "backbone", "proposal_generator", "roi_heads"]
    assert [m.depth for m in top] == [0, 1, 1, 1]
    # What neither holds nor does anything is left out, such as the anchors.
    names = {m.name for m in analysis.down_to(2)}
    assert "roi_heads.box_head" in names and "proposal_generator.anchor_generator" not in names


FC, PREDICTOR = 256 * 49 * 1024 + 1024 * 1024, 1024 * 81 + 1024 * 320
MASK = 4 * 196 * 256 * 256 * 9 + 196 * 256 * 256 * 4 + 784 * 256 * 80
BOX_CONVS = 4 * 49 * 256 * 256 * 9 + 256 * 49 * 1024


def test_all_proposals_and_detections_that_the_config_lets_through(analysis):
    modules = by_name(analysis)
    assert (analysis.proposals, analysis.detections) == (12, 5)
    assert modules["roi_heads.box_head"].multiply_adds == 12 * FC
    assert modules["roi_heads.box_predictor"].multiply_adds == 12 * PREDICTOR
    assert modules["roi_heads.mask_head"].multiply_adds == 5 * MASK


def test_each_stage_of_a_cascade_sees_them_all():
    found = analyze(make(CASCADE, *SMALL), (32, 64))
    modules = by_name(found)
    assert modules["roi_heads.box_head"].multiply_adds == 3 * 12 * BOX_CONVS
    assert modules["roi_heads.box_predictor.2"].multiply_adds == 12 * PREDICTOR
    for stage in range(3):
        assert modules[f"roi_heads.mask_head.{stage}"].multiply_adds == 5 * MASK
    assert modules["roi_heads.mask_head"].multiply_adds == 3 * 5 * MASK


@pytest.mark.parametrize("training", [True, False])
def test_the_model_stays_as_it_was(training):
    model = make(MASK_RCNN, *SMALL).train(training)
    before, state = copy.deepcopy(model.state_dict()), dict(vars(model.roi_heads.box_predictor))
    analyze(model, (32, 64))
    assert model.training is training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert vars(model.roi_heads.box_predictor) == state
    assert model.proposal_generator.nms_thresh == 0.7
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_model_that_does_not_fit_together_is_one_sentence_and_stays_as_it_was():
    model = make(MASK_RCNN, "model.proposal_generator.head.in_channels=8")
    with pytest.raises(
        ConfigError, match=r"^The model part proposal_generator\.rpn_head\.conv can"
    ):
        analyze(model, SIZE)
    assert model.training and model.proposal_generator.nms_thresh == 0.7
    assert "predict_probs" not in vars(model.roi_heads.box_predictor)


def test_other_channels_than_three():
    model = make(
        MASK_RCNN,
        *SMALL,
        "model.backbone.bottom_up.in_chans=4",
        "model.pixel_mean=[0,0,0,0]",
        "model.pixel_std=[1,1,1,1]",
    )
    modules = by_name(analyze(model, (32, 32)))
    assert modules["backbone.bottom_up.patch_embed.proj"].multiply_adds == 64 * 16 * 4 * 16


@pytest.mark.skipif(not USE_DETECTRON2, reason="Detectron2's own analysis is Detectron2's")
def test_detectron2s_own_analysis_agrees(detector, analysis):
    from detectron2.utils.analysis import FlopCountAnalysis

    inputs = [{"image": 255 * torch.rand(3, *SIZE)}]
    with use_backend("reference"), torch.no_grad():
        theirs = FlopCountAnalysis(detector.eval(), inputs).by_module_and_operator()
    modules = by_name(analysis)
    # It does not know the attention's own products: here one window of 7 x 7 in each of 6 blocks.
    own = {"backbone.bottom_up.layers.2": 6 * 2 * 49**2 * 384}
    for name in ("backbone.bottom_up.layers.2", "backbone.fpn_output2", "proposal_generator"):
        products = theirs[f"model.{name}"]["conv"] + theirs[f"model.{name}"]["linear"]
        assert products == modules[name].multiply_adds - own.get(name, 0) > 0
