"""Norm and strided convolution as one operator, against the same in float64, part by part."""

import cases
import pytest
import torch
import torch.nn.functional as F
from cases import lay_out
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from iwin_d2.ops import extension
from iwin_d2.ops.downsample import can_run, downsample

EPS = 1e-5
needs_extension = pytest.mark.skipif(not extension.loaded(), reason=extension.reason() or "-")


def parameters(channels, outputs):
    """Return norm weight, norm bias, weight and bias."""
    torch.manual_seed(0)
    return (
        1 + 0.2 * torch.randn(channels),
        0.2 * torch.randn(channels),
        torch.randn(outputs, channels, 3, 3) * (9 * channels) ** -0.5,
        torch.randn(outputs),
    )


def part_by_part(x, norm_weight, norm_bias, weight, bias, eps=EPS):
    """As published: zeros to an even size, then one more row and column."""
    y = F.layer_norm(x, x.shape[-1:], norm_weight, norm_bias, eps).permute(0, 3, 1, 2)
    y = F.pad(y, (0, y.shape[-1] % 2, 0, y.shape[-2] % 2))
    return F.conv2d(F.pad(y, (0, 1, 0, 1)), weight, bias, stride=2).permute(0, 2, 3, 1)


def assert_same(x, p):
    before = x.clone()
    out = downsample(x, *p, EPS)
    truth = part_by_part(x.double(), *(w.double() for w in p))
    assert out.dtype == x.dtype and out.is_contiguous()
    torch.testing.assert_close(out.double(), truth, rtol=1e-5, atol=1e-5)
    assert torch.equal(x, before)


@pytest.mark.parametrize(
    "size", [(1, 1), (1, 6), (5, 1), (2, 2), (3, 4), (4, 3), (7, 7), (8, 10), (33, 19), (2, 70)]
)
def test_sizes_and_channels(compiled_backend, size):
    for batch, channels, outputs in [(1, 16, 32), (2, 96, 192), (1, 80, 16), (3, 48, 112)]:
        assert_same(torch.randn(batch, *size, channels), parameters(channels, outputs))


@pytest.mark.parametrize("layout", cases.LAYOUTS)
def test_layouts_of_map_and_weights(compiled_backend, layout):
    x, p = lay_out(torch.randn(2, 9, 8, 32), layout), parameters(32, 64)
    assert_same(x, p)
    strided = [lay_out(w[None], "strided channels")[0] for w in p]
    assert_same(x, strided)
    strided[2] = p[2].to(memory_format=torch.channels_last)
    assert_same(x, strided)


def test_no_image(compiled_backend):
    assert_same(torch.randn(0, 9, 8, 32), parameters(32, 64))


def test_any_number_of_threads(compiled_backend):
    x, p = torch.randn(2, 31, 42, 48), parameters(48, 96)
    threads = torch.get_num_threads()
    results = []
    try:
        for number in (1, 2, 2, 3):
            torch.set_num_threads(number)
            results.append(downsample(x, *p, EPS))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(results[0], other) for other in results[1:])


@pytest.mark.parametrize("place", [(0, 0), (3, 4), (4, 3), (7, 8), (8, 8)])
def test_numbers_that_are_none_reach_their_neighbours(compiled_backend, place):
    x, p = torch.randn(1, 9, 9, 32), parameters(32, 64)
    plain = downsample(x, *p, EPS)
    x[0, place[0], place[1], 5] = float("nan")
    out = downsample(x, *p, EPS)
    reached = torch.zeros(5, 5, dtype=torch.bool)
    for row in range(5):
        for column in range(5):
            near = (0 <= a - 2 * b <= 2 for a, b in zip(place, (row, column)))
            reached[row, column] = all(near)
    assert out[0, reached].isnan().all()
    assert torch.equal(out[0, ~reached], plain[0, ~reached])


@needs_extension
def test_flops_are_those_of_the_parts():
    x, p = torch.randn(2, 9, 10, 32), parameters(32, 64)
    counts = []
    for function in (lambda: downsample(x, *p, EPS), lambda: part_by_part(x, *p)):
        with FlopCounterMode(display=False) as counter:
            function()
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0


@needs_extension
def test_opcheck():
    arguments = (torch.randn(2, 5, 6, 16), *parameters(16, 32), EPS)
    torch.library.opcheck(torch.ops.iwin_d2.downsample.default, arguments)


@needs_extension
def test_what_is_not_served_says_why():
    assert "multiples of 16, not 24 and 32" in can_run(torch.zeros(1, 4, 4, 24), 32)
    assert "multiples of 16, not 32 and 40" in can_run(torch.zeros(1, 4, 4, 32), 40)
    assert "float32 on cpu, not float64" in can_run(torch.zeros(1, 4, 4, 32).double(), 64)


MAP = torch.zeros(1, 4, 4, 32)
NORM, BIAS, WEIGHT = torch.zeros(32), torch.zeros(64), torch.zeros(64, 32, 3, 3)
BAD = [
    ((torch.zeros(4, 4, 32), NORM, NORM, WEIGHT, BIAS), r"\[N, H, W, C\].*\(4, 4, 32\)"),
    ((torch.zeros(1, 0, 4, 32), NORM, NORM, WEIGHT, BIAS), r"empty side.*\(1, 0, 4, 32\)"),
    ((MAP, BIAS, NORM, WEIGHT, BIAS), r"norm_weight .*\(64,\)"),
    ((MAP, NORM, BIAS, WEIGHT, BIAS), r"norm_bias .*\(64,\)"),
    ((MAP, NORM, NORM, WEIGHT[:, :16], BIAS), r"weight .*\(64, 16, 3, 3\)"),
    ((MAP, NORM, NORM, WEIGHT[..., :2], BIAS), r"weight .*\(64, 32, 3, 2\)"),
    ((MAP, NORM, NORM, WEIGHT[..., 0], BIAS), r"weight .*\(64, 32, 3\)"),
    ((MAP, NORM, NORM, WEIGHT, NORM), r"bias .*\(32,\)"),
    ((MAP, NORM, NORM, WEIGHT, BIAS.double()), r"bias.*([dD]ouble|float64)"),
]


@needs_extension
@pytest.mark.parametrize("entrance", ["c++", "meta", "fake"])
@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_bad_arguments(entrance, arguments, message):
    device = "meta" if entrance == "meta" else "cpu"

    def call():
        downsample(*(torch.empty(x.shape, dtype=x.dtype, device=device) for x in arguments), EPS)

    with pytest.raises(ValueError, match=message) as error:
        if entrance == "fake":
            with FakeTensorMode():
                call()
        else:
            call()
    assert "\n" not in str(error.value)
