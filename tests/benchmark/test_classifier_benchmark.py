"""The classifiers' benchmarks: each alternative classifies and learns; what the tables say."""

import pytest
import torch

from iwin_d2.benchmark import classifier, video, whole_models
from iwin_d2.benchmark.cases import CASES
from iwin_d2.benchmark.rates import Rates

IMAGES, CLIP = (2, 3, 64, 64), (1, 3, 4, 64, 64)
MAKERS = {"iwin": classifier._ours, "swin": classifier._swin}


@pytest.fixture
def quick(monkeypatch):
    """Rates of the machine that nobody waits for."""

    def once(runs, rounds, *args):
        for run in runs.values():
            for _ in range(rounds):
                run()
        return dict.fromkeys(runs, (0.5, 2.0)), Rates(copy=1e9, products={"one": 1e10})

    monkeypatch.setattr(whole_models, "time_with_rates", once)
    # In a process of its own each; test_segmentation_benchmark.py measures.
    monkeypatch.setattr(whole_models, "peak_memory", lambda build: 7.0)


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_each_classifies_images(make):
    scores = classifier.build(make, IMAGES, training=False)()
    assert scores.shape == (2, 1000)
    torch.testing.assert_close(scores.sum(1), torch.ones(2))


BUILT = [(make, IMAGES) for make in MAKERS.values()]
BUILT += [(make, CLIP) for make in video.CLASSIFIERS.values()]


@pytest.mark.parametrize(("make", "shape"), BUILT)
def test_each_learns(make, shape):
    run = classifier.build(make, shape, training=True)
    model, *_, optimizer = run.args
    assert model.training
    before = model.state_dict()
    before = {name: before[name].clone() for name in list(before)[:2]}
    assert 4 < run() < 10  # about log(1000) or log(400)
    assert any((model.state_dict()[name] != value).any() for name, value in before.items())
    assert all(p.grad is None for p in model.parameters())
    assert len(optimizer.param_groups[0]["params"]) == len(list(model.parameters()))


def test_checkpointing_is_what_it_says():
    plain, checkpointing, _ = (make() for make in video.CLASSIFIERS.values())
    assert all(stage.use_checkpoint for stage in checkpointing.backbone.layers)
    assert not any(stage.use_checkpoint for stage in plain.backbone.layers)
    rates = [module.p for module in plain.modules() if hasattr(module, "p")]
    assert max(rates) == 0.5  # the dropout before the head
    assert sum(p.numel() for p in plain.parameters()) == pytest.approx(30e6, rel=0.1)


def test_tables(quick):
    assert "classifier" in CASES
    text = "\n".join(classifier.benchmark_classifier(rounds=1, side=32))
    assert "classifier T, inference, 8x32x32" in text
    assert "classifier T, training iteration, 8x32x32" in text
    assert text.count("| ours: Iwin-T | 500 | 16.0 | 2.00 | 7 |") == 2  # eight in half a second
    makers = dict(list(video.CLASSIFIERS.items())[:1])
    text = "\n".join(video.compare_training(makers, CLIP, rounds=1))
    assert "video classifier T, training iteration, 1x4x64x64" in text and "| 2.0 |" in text
    assert "clips/s" in text
