"""UPerNetHead and FCNHead: the definition, any backbone, any size, losses, bad settings."""

import copy

import pytest
import torch
import torch.nn.functional as F
from segmenters import FourLevels, shrunken_upernet
from torch import nn

from iwin_d2.d2.config import instantiate
from iwin_d2.d2.layers import ShapeSpec
from iwin_d2.d2.modeling import SemanticSegmentor
from iwin_d2.errors import ConfigError
from iwin_d2.modeling import FCNHead, IwinTransformer, SegmentationLoss, UPerNetHead
from iwin_d2.modeling.iwin import iwin_shapes
from iwin_d2.modeling.semantic_segmentation.head import upsample
from iwin_d2.modeling.sync_batch_norm import SyncBatchNorm

CLASSES = 5


def make_head(shapes, auxiliary="c4", **options):
    options = {"num_classes": CLASSES, "channels": 12, "dropout": 0.0, **options}
    return UPerNetHead(
        input_shape=shapes,
        auxiliary=auxiliary
        and FCNHead(
            input_shape=shapes,
            in_feature=auxiliary,
            num_classes=CLASSES,
            channels=7,
            dropout=0.0,
            loss_weight=0.4,
            norm=options.get("norm", "SyncBN"),
        ),
        **options,
    )


def make_segmenter(rounds_up=True, **options):
    torch.manual_seed(0)
    backbone = FourLevels(rounds_up=rounds_up)
    head = make_head(backbone.shapes, **options)
    model = SemanticSegmentor(
        backbone=backbone, sem_seg_head=head, pixel_mean=[128.0] * 3, pixel_std=[64.0] * 3
    )
    for module in model.modules():  # logits that differ
        if isinstance(module, nn.Conv2d):
            module.weight.data *= 1.5
    return model


def record(height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        "image": torch.randint(0, 256, (3, height, width), generator=generator).to(torch.uint8),
        "sem_seg": torch.randint(0, CLASSES, (height, width), generator=generator),
    }


def resized(x, size):
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def conv(x, layer):
    x = F.conv2d(x, layer.weight, None, padding=layer.padding)
    norm = layer.norm
    return F.relu(
        F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, False)
    )


def by_hand(head, maps):
    """The logits of a head in eval mode, step by step."""
    *fine, coarse = maps
    pooled = [
        resized(conv(F.adaptive_avg_pool2d(coarse, scale), layer), coarse.shape[-2:])
        for scale, layer in zip(head.pyramid_pooling.scales, head.pyramid_pooling.convs)
    ]
    laterals = [conv(x, layer) for x, layer in zip(fine, head.lateral_convs)]
    laterals.append(conv(torch.cat([coarse, *pooled], 1), head.pyramid_pooling.bottleneck))
    for i in range(len(laterals) - 1, 0, -1):
        laterals[i - 1] = laterals[i - 1] + resized(laterals[i], laterals[i - 1].shape[-2:])
    levels = [conv(x, layer) for x, layer in zip(laterals, head.fpn_convs)] + [laterals[-1]]
    joined = torch.cat([resized(x, levels[0].shape[-2:]) for x in levels], 1)
    return head.predictor(conv(joined, head.fpn_bottleneck))


@pytest.mark.parametrize("size", [(64, 96), (61, 75), (33, 130), (4, 5), (1, 1)])
@pytest.mark.parametrize("backbone", ["toy", "iwin"])
def test_the_definition(size, backbone):
    torch.manual_seed(0)
    if backbone == "toy":
        backbone = FourLevels()
        shapes = backbone.shapes
    else:
        backbone = IwinTransformer(embed_dim=8, depths=[1] * 4, num_heads=[1, 2, 2, 4])
        shapes = iwin_shapes(8)
        assert shapes == backbone.output_shape()
    head = make_head(shapes, auxiliary="res4" if "res4" in shapes else "c4").eval()
    for name, buffer in head.named_buffers():
        if "running" in name:
            buffer.uniform_(0.5, 1.5)
    with torch.no_grad():
        features = backbone(torch.randn(2, 3, *size))
        expected = by_hand(head, [features[name] for name in shapes])
        found = head.layers(features)
        scores, losses = head(features)
        auxiliary = head.auxiliary.layers(features)
    height, width = (-(-side // 4) for side in size)
    assert found.shape == (2, CLASSES, height, width)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert losses == {} and scores.shape == (2, CLASSES, 4 * height, 4 * width)
    torch.testing.assert_close(scores, resized(found, scores.shape[-2:]))
    assert auxiliary.shape == (2, CLASSES, *features[head.auxiliary.in_feature].shape[-2:])


def test_features_are_taken_from_fine_to_coarse_whatever_their_order():
    shapes = FourLevels().shapes
    torch.manual_seed(0)
    head = make_head(shapes)
    torch.manual_seed(0)
    turned = make_head(dict(reversed(shapes.items())), in_features=["c5", "c2", "c4", "c3"])
    assert turned.in_features == ["c2", "c3", "c4", "c5"]
    assert all(torch.equal(a, b) for a, b in zip(head.parameters(), turned.parameters()))
    assert make_head(shapes, in_features=["c3", "c5"]).stride == 8


@pytest.mark.parametrize("rounds_up", [True, False])
def test_losses_of_images_of_different_sizes(rounds_up):
    model = make_segmenter(rounds_up).train()
    batch = [record(61, 75), record(90, 42, 1)]
    losses = model(batch)
    assert list(losses) == ["loss_sem_seg", "loss_sem_seg_aux"]

    images = torch.zeros(2, 3, 90, 75)
    targets = torch.full((2, 90, 75), 255)
    for place, label, x in zip(images, targets, batch):
        height, width = x["sem_seg"].shape
        place[:, :height, :width] = (x["image"] - 128.0) / 64.0
        label[:height, :width] = x["sem_seg"]
    features = model.backbone(images)
    head = model.sem_seg_head
    for name, part, stride, weight in (
        ("loss_sem_seg", head, 4, 1.0),
        ("loss_sem_seg_aux", head.auxiliary, 16, 0.4),
    ):
        logits = part.layers(features)
        height, width = logits.shape[-2:]
        if rounds_up:  # the maps reach beyond the images
            scores = resized(logits, (stride * height, stride * width))[..., :90, :75]
        else:
            scores = resized(logits, (90, 75))
        expected = weight * F.cross_entropy(scores, targets, ignore_index=255)
        torch.testing.assert_close(losses[name], expected)


def test_every_parameter_learns():
    model = make_segmenter().train()
    sum(model([record(64, 64), record(64, 64, 1)]).values()).backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


def test_a_batch_of_ignored_pixels_alone_changes_nothing():
    model = make_segmenter().train()
    batch = [record(64, 64), record(64, 64, 1)]
    for x in batch:
        x["sem_seg"].fill_(255)
    losses = model(batch)
    assert [loss.item() for loss in losses.values()] == [0, 0]
    sum(losses.values()).backward()
    assert all((p.grad == 0).all() for p in model.parameters())


def test_without_an_auxiliary_head():
    model = make_segmenter(auxiliary=None).train()
    assert list(model([record(64, 64), record(48, 64)])) == ["loss_sem_seg"]
    assert not any("auxiliary" in name for name in model.state_dict())


def test_it_learns_two_images():
    """Four quarters of four colours."""
    model = make_segmenter(norm="BN").train()
    labels = torch.arange(4).view(2, 2).repeat_interleave(32, 0).repeat_interleave(32, 1)
    colours = torch.tensor([[250, 0, 0], [0, 250, 0], [0, 0, 250], [250, 250, 0]])
    batch = [
        {"image": colours[label].permute(2, 0, 1).to(torch.uint8), "sem_seg": label}
        for label in (labels, labels.flip(0))
    ]
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(40):
        losses = model(batch)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        for x, output in zip(batch, model(batch)):
            assert (output["sem_seg"].argmax(0) == x["sem_seg"]).float().mean() > 0.9


def test_training_without_labels_is_one_sentence():
    model = make_segmenter().train()
    with pytest.raises(ConfigError, match='images without "sem_seg", their labels: use a mapper'):
        model([{"image": record(64, 64)["image"]}] * 2)


# ---- BatchNorm ----------------------------------------------------------------------------------


def test_one_image_in_training_is_one_sentence_where_batch_norm_cannot_learn():
    model = make_segmenter().train()
    with pytest.raises(ConfigError, match="BatchNorm cannot learn from a single value") as caught:
        model([record(64, 64)])
    assert "at least two images in each batch" in str(caught.value)
    for others in ({"norm": "GN", "channels": 64, "auxiliary": None}, {"pool_scales": [2, 3]}):
        make_segmenter(**others).train()([record(64, 64)])
    with pytest.raises(ConfigError, match="BatchNorm cannot learn from a single value"):
        make_segmenter(pool_scales=[2, 3]).train()([record(16, 16)])  # the coarsest map itself
    with pytest.raises(ConfigError, match="BatchNorm cannot learn from a single value"):
        make_segmenter(pool_scales=[2], in_features=["c2", "c3"]).train()([record(16, 16)])


def test_one_image_where_nothing_learns_from_it():
    model = make_segmenter().train()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()  # frozen, and as validation losses are computed
    assert all(loss > 0 for loss in model([record(64, 64)]).values())
    model.eval()
    assert model([record(1, 1)])[0]["sem_seg"].shape == (CLASSES, 1, 1)
    model.train()([record(1, 1), record(1, 1, 1)])  # two values are enough


def test_batch_norm_is_synchronised_by_itself_and_plain_in_a_single_process():
    model = make_segmenter()
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert {type(norm) for norm in norms} == {nn.SyncBatchNorm} and len(norms) == 13
    plain = copy.deepcopy(model)
    for name, module in plain.named_modules():
        if isinstance(module, nn.SyncBatchNorm):
            norm = nn.BatchNorm2d(module.num_features)
            norm.load_state_dict(module.state_dict())
            plain.get_submodule(name.rpartition(".")[0]).norm = norm
    batch = [record(64, 64), record(64, 64, 1)]
    for one, other in zip(model.train()(batch).values(), plain.train()(batch).values()):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("kind", [nn.SyncBatchNorm, SyncBatchNorm])
def test_one_image_in_each_of_several_processes_is_enough(monkeypatch, kind):
    from iwin_d2.modeling.semantic_segmentation import head

    layer = head.conv_norm_relu(2, 4, 1, kind)
    value = torch.randn(1, 2, 1, 1)
    with pytest.raises(ConfigError):
        head.check_statistics(layer, value)
    monkeypatch.setattr(head.comm, "get_world_size", lambda: 2)
    head.check_statistics(layer, value)
    with pytest.raises(ConfigError):
        head.check_statistics(head.conv_norm_relu(2, 4, 1, "BN"), value)


# ---- settings -----------------------------------------------------------------------------------


def test_dropout_is_in_training_alone():
    model = make_segmenter()
    model.sem_seg_head.dropout.p = model.sem_seg_head.auxiliary.dropout.p = 0.5
    features = model.backbone(torch.randn(2, 3, 64, 64))
    head = model.sem_seg_head
    assert not torch.equal(head.train().layers(features), head.layers(features))
    assert torch.equal(head.eval().layers(features), head.layers(features))


def test_defaults_are_the_published_settings():
    shapes = iwin_shapes(96)
    with torch.device("meta"):
        head = UPerNetHead(input_shape=shapes, num_classes=150)
        auxiliary = FCNHead(in_channels=384, num_classes=150)
    assert head.pyramid_pooling.scales == [1, 2, 3, 6] and head.dropout.p == 0.1
    assert head.fpn_bottleneck.in_channels == 4 * head.fpn_bottleneck.out_channels == 2048
    assert (head.num_classes, head.ignore_value, head.stride) == (150, 255, 4)
    assert (auxiliary.stride, auxiliary.convs[0].out_channels, len(auxiliary.convs)) == (16, 256, 1)
    assert auxiliary.dropout.p == 0.1


def test_the_config_follows_the_backbone_and_the_number_of_classes():
    config = shrunken_upernet()
    config.backbone.embed_dim = 32
    config.sem_seg_head.num_classes = 3
    config.sem_seg_head.ignore_value = 7
    config.sem_seg_head.loss.class_weights = [1.0, 2.0, 3.0]
    with torch.device("meta"):
        head = instantiate(config).sem_seg_head
    assert [conv.in_channels for conv in head.lateral_convs] == [32, 64, 128]
    assert head.auxiliary.convs[0].in_channels == 128
    for part in (head, head.auxiliary):
        assert (part.num_classes, part.ignore_value) == (3, 7)
        assert len(part.loss.class_weights) == 3
    config.sem_seg_head.auxiliary = None
    with torch.device("meta"):
        assert instantiate(config).sem_seg_head.auxiliary is None


SHAPES = {name: ShapeSpec(channels=4, stride=2**i) for i, name in enumerate(("a", "b"), start=2)}


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: UPerNetHead(input_shape=SHAPES, num_classes=0), "num_classes must be at least 1"),
        (
            lambda: UPerNetHead(input_shape=SHAPES, in_features=["a", "c"], num_classes=2),
            r"in_features must be at least two of \['a', 'b'\], got \['a', 'c'\]",
        ),
        (
            lambda: UPerNetHead(input_shape=SHAPES, in_features=["a"], num_classes=2),
            "in_features must be at least two",
        ),
        (
            lambda: UPerNetHead(
                input_shape=SHAPES,
                num_classes=2,
                auxiliary=FCNHead(in_channels=4, num_classes=3),
            ),
            "num_classes is 2, but that of the auxiliary head 3",
        ),
        (
            lambda: UPerNetHead(
                input_shape=SHAPES,
                num_classes=2,
                ignore_value=0,
                auxiliary=FCNHead(in_channels=4, num_classes=2),
            ),
            "ignore_value is 0, but that of the auxiliary head 255",
        ),
        (
            lambda: UPerNetHead(
                input_shape=SHAPES, num_classes=2, loss=SegmentationLoss(class_weights=[1] * 3)
            ),
            "class_weights has 3 numbers for 2 classes",
        ),
        (lambda: FCNHead(num_classes=2), "channels and stride of in_feature='res4' are wanted"),
        (
            lambda: FCNHead(num_classes=2, in_channels=4, in_feature="c4"),
            "channels and stride of in_feature='c4' are wanted",
        ),
        (
            lambda: FCNHead(num_classes=2, input_shape=SHAPES),
            r"in_feature='res4' is none of input_shape, \['a', 'b'\]",
        ),
        (
            lambda: FCNHead(num_classes=2, in_channels=4, num_convs=0),
            "num_convs must be at least 1, got 0",
        ),
    ],
)
def test_settings_that_make_no_sense(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_several_convolutions_of_an_auxiliary_head():
    head = FCNHead(in_channels=4, num_classes=2, channels=6, num_convs=3).eval()
    assert head.layers({"res4": torch.randn(1, 4, 5, 7)}).shape == (1, 2, 5, 7)
    assert [conv.in_channels for conv in head.convs] == [4, 6, 6]


def test_upsampling_keeps_places():
    """A map reaches as far as its stride says, whatever the images' size."""
    logits = torch.randn(1, 2, 3, 4)
    whole = upsample(logits, 4)
    assert whole.shape == (1, 2, 12, 16)
    assert torch.equal(upsample(logits, 4, (10, 13)), whole[..., :10, :13])
    assert torch.equal(upsample(logits, 4, (13, 13)), resized(logits, (13, 13)))
