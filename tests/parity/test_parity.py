"""Native and Detectron2 agree on the same weights and input, in every part."""

import math

import compare
import pytest
import torch

from iwin_d2.d2.framework import detectron2_is_installed

_PARTS = [(case, part) for case, parts in compare.TOLERANCES.items() for part in parts]
needs_both = pytest.mark.skipif(not detectron2_is_installed(), reason=compare.REASON)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return compare.run_both(tmp_path_factory.mktemp("parity"))


if detectron2_is_installed():  # without, one line about it is enough

    @pytest.mark.parametrize(("case", "part"), _PARTS)
    def test_agrees(found, case, part):
        native, detectron2 = (side[case][part] for side in found)
        apart = {
            path: difference
            for path, difference in compare.differences(native, detectron2)
            if not difference <= compare.TOLERANCES[case][part]
        }
        assert not apart


@needs_both
def test_every_part_is_compared(found):
    expected = {case: set(parts) for case, parts in compare.TOLERANCES.items()}
    for side in found:
        assert {case: set(parts) for case, parts in side.items()} == expected


@needs_both
def test_the_cases_say_something(found):
    """Nothing that is compared is empty, zero or not a number."""
    for side in found:
        for case in ("quickstart cascade", "Mask R-CNN"):
            parts = side[case]
            assert all(loss > 1e-6 and math.isfinite(loss) for loss in parts["losses"].values())
            without = [name for name, g in parts["gradients"].items() if not g.abs().max() > 0]
            assert without == []
            for part in ("training proposals", "test proposals", "detections"):
                counts = [len(next(iter(x.values()))) for x in map(_tensors, parts[part])]
                assert min(counts) >= 50, part
            assert all(0 < m.double().mean() < 0.5 for m in parts["pasted masks"])
        for case in ("UPerNet", "Semantic FPN", "Detectron2's Semantic FPN"):
            parts = side[case]
            assert all(loss > 0.1 for loss in parts["losses"].values())
            assert all(g.abs().max() > 0 for g in parts["gradients"].values())
            assert all(scores.std() > 0.01 for scores in parts["scores"])
        assert len(side["published T"]["detections"]["scores"]) >= 10
        results = side["evaluation"]["boxes and masks"]["results"]
        assert all(5 < results[task]["AP"] < 95 for task in ("bbox", "segm"))
        assert len(side["configs"]["every config"]) >= 11
        cropped = [x["image"].shape for x in side["data"]["augmented"]["polygon, boxes cut"]]
        assert len(set(cropped)) > 20
        for run in side["training"].values():
            assert len(run["predictions"]) > 10
        first, *others = (run["weights"] for run in side["training"].values())
        assert all((first[name] != other[name]).any() for other in others for name in _WEIGHTS)


_WEIGHTS = ("backbone.bottom_up.patch_embed.proj.weight", "roi_heads.mask_head.2.predictor.weight")


def _tensors(fields):
    return {name: value for name, value in fields.items() if isinstance(value, torch.Tensor)}


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (torch.tensor([1.0, -4.0]), torch.tensor([1.0, -4.0]), 0.0),
        (torch.tensor([1.0, -3.0]), torch.tensor([1.0, -4.0]), 0.25),
        (torch.tensor([True, False]), torch.tensor([True, True]), 0.5),
        (torch.tensor([1.0]), torch.tensor([1.0], dtype=torch.float64), math.inf),
        (torch.tensor([1.0]), torch.tensor([[1.0]]), math.inf),
        (torch.tensor([math.nan, 1.0]), torch.tensor([math.nan, 1.0]), 0.0),
        (torch.tensor([math.nan]), torch.tensor([1.0]), math.inf),
        (math.nan, math.nan, 0.0),
        (2.0, 4.0, 0.5),
        (2, 2.0, math.inf),
        ({"a": [1, "x"]}, {"a": [1, "x"]}, 0.0),
        ({"a": [1, "x"]}, {"a": [1, "y"]}, math.inf),
        ({"a": [1]}, {"a": [1, 2]}, math.inf),
        ({"a": 1}, {"a": 1, "b": 2}, math.inf),
    ],
)
def test_differences_are_seen(a, b, expected):
    assert max(d for _, d in compare.differences(a, b)) == expected
