"""The attention core's alternatives do the same job, and the floors are what it needs."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from iwin_d2.benchmark import ops
from iwin_d2.benchmark.models import OURS, PUBLISHED
from iwin_d2.benchmark.rates import Rates
from iwin_d2.benchmark.timing import why_not

CASES = [
    ops.Case((2, 9, 12), num_heads=2, head_dim=8, window_size=3),  # no padding
    ops.Case((1, 8, 11), num_heads=3, head_dim=16, window_size=3),
    ops.Case((1, 3, 5, 6), num_heads=2, head_dim=8, window_size=2),
    ops.Case((1, 1, 4, 4), num_heads=1, head_dim=8, window_size=7),
]


@pytest.fixture(autouse=True)
def flex_is_not_compiled(request, monkeypatch):
    if "slow" not in request.keywords:
        monkeypatch.setitem(ops.ALTERNATIVES, ops.FLEX, ops.flex)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", [PUBLISHED, ops.SDPA, ops.FLEX])
def test_alternatives_give_the_same(name, case):
    result = ops.build(name, case)()
    assert result.shape == (*case.size, case.channels)
    torch.testing.assert_close(result, ops.build(OURS, case)(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", [PUBLISHED, ops.SDPA])
def test_alternatives_give_the_same_gradients(name, case):
    ours = ops.build(OURS, case, backward=True)()
    assert [grad.shape for grad in ours] == [(*case.size, 3 * case.channels), (3 * case.channels,)]
    theirs = ops.build(name, case, backward=True)()
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_compiled_flex_attention():
    case = CASES[0]
    torch.testing.assert_close(ops.build(ops.FLEX, case)(), ops.build(OURS, case)())
    assert why_not(ops.build(ops.FLEX, case)) is None
    reason = why_not(ops.build(ops.FLEX, case, backward=True))
    assert reason == "FlexAttention does not support backward on CPU"


@pytest.mark.parametrize("case", CASES)
def test_flops_are_those_of_the_published_formulation(case):
    for backward, products in ((False, 1), (True, 3)):
        run = ops.build(PUBLISHED, case, backward)
        with FlopCounterMode(display=False) as counter:
            run()
        assert counter.get_total_flops() == products * case.flops


def test_the_table(monkeypatch):
    rates = Rates(copy=1e6, products={"slow": 1e6, "fast": 2e6})
    case = CASES[1]

    def timed(candidates, rounds, target):
        assert rounds == 2 and all(run() is not None for run in candidates.values())
        return dict.fromkeys(candidates, (0.5, 1.0)), rates

    monkeypatch.setattr(ops, "time_with_rates", timed)
    monkeypatch.setattr(ops, "peak_memory", lambda build: build() and 12.0)
    lines = ops.compare(case, True, {PUBLISHED: "at least 3"}, rounds=2)
    cells = {line.split("|")[1].strip(): line for line in lines if line.startswith("| ")}
    floors = [line for name, line in cells.items() if name.startswith("floor: ")]
    assert "3 heads of 16, window 3, forward + backward" in lines[0]
    assert cells[PUBLISHED] == f"| {PUBLISHED} | 500.0 | 1.00 (at least 3) | 12 |"
    assert "does not run | FlexAttention does not support backward on CPU" in cells[ops.FLEX]
    # 11 parts of 8 x 11 x 48 float32; 12 windows of 9 tokens, 6 products of 48 channels.
    moved, flops = 4 * 11 * 8 * 11 * 48, 6 * 2 * 12 * 81 * 48
    for line, seconds in zip(floors, (moved / 1e6, flops / 2e6), strict=True):
        assert line.endswith(f"| {1000 * seconds:.1f} | {seconds / 0.5:.2f} |  |")
