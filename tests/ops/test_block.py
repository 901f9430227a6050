"""A whole block as one operator, against the same in float64, written part by part."""

import itertools

import cases
import pytest
import torch
import torch.nn.functional as F
from cases import lay_out
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from iwin_d2.ops import extension, reference
from iwin_d2.ops.block import BlockParameters, can_run, iwin_block

EPS = 1e-5
needs_extension = pytest.mark.skipif(not extension.loaded(), reason=extension.reason() or "-")


def parameters(channels, hidden, depthwise=True, seed=0):
    """Parameters that keep the size of what goes through them."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape, size=0.2):
        return size * torch.randn(*shape, generator=generator)

    def weight(outputs, inputs):
        return normal(outputs, inputs, size=inputs**-0.5)

    return BlockParameters(
        norm1_weight=1 + normal(channels),
        norm1_bias=normal(channels),
        qkv_weight=2 * weight(3 * channels, channels),
        qkv_bias=normal(3 * channels),
        proj_weight=weight(channels, channels),
        proj_bias=normal(channels),
        depthwise_weight=normal(channels, 1, 3, 3) if depthwise else None,
        depthwise_bias=normal(channels) if depthwise else None,
        norm2_weight=1 + normal(channels),
        norm2_bias=normal(channels),
        fc1_weight=weight(hidden, channels),
        fc1_bias=normal(hidden),
        fc2_weight=weight(channels, hidden),
        fc2_bias=normal(channels),
    )


def part_by_part(x, p, num_heads, window, eps=EPS):
    """The definition (section 3.2), in PyTorch; the convolution works frame by frame."""
    y = F.layer_norm(x, x.shape[-1:], p.norm1_weight, p.norm1_bias, eps)
    qkv = F.linear(y, p.qkv_weight, p.qkv_bias)
    frames = qkv if x.dim() == 5 else qkv.unsqueeze(1)
    attended = reference.attention(frames, num_heads, window, p.qkv_bias, None).view(x.shape)
    z = x + F.linear(attended, p.proj_weight, p.proj_bias)
    if p.depthwise_weight is not None:
        images = y.reshape(-1, *y.shape[-3:]).permute(0, 3, 1, 2)
        convolved = F.conv2d(
            images, p.depthwise_weight, p.depthwise_bias, padding=1, groups=x.shape[-1]
        )
        z = z + convolved.permute(0, 2, 3, 1).reshape(x.shape)
    hidden = F.gelu(
        F.linear(
            F.layer_norm(z, x.shape[-1:], p.norm2_weight, p.norm2_bias, eps),
            p.fc1_weight,
            p.fc1_bias,
        )
    )
    return z + F.linear(hidden, p.fc2_weight, p.fc2_bias)


def in_float64(p):
    return BlockParameters(*(None if w is None else w.double() for w in p))


def assert_same(x, p, num_heads, window):
    before = x.clone()
    out = iwin_block(x, p, num_heads, window, EPS)
    truth = part_by_part(x.double(), in_float64(p), num_heads, window)
    assert out.shape == x.shape and out.dtype == x.dtype and out.is_contiguous()
    # The parts in float32, by PyTorch, are off by up to 2e-5 where the softmax is sharp.
    torch.testing.assert_close(out.double(), truth, rtol=1e-5, atol=3e-5)
    assert torch.equal(x, before)


# Those of more than 256 tokens are attended to from a projected map.
WINDOWS = [*((side, side) for side in range(1, 18)), (3, 5), (8, 2), (40, 9)]


@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_windows_sizes_and_channels(compiled_backend, window):
    channels = itertools.cycle([(16, 1), (32, 2), (48, 16), (96, 3), (80, 5), (128, 1)])
    hidden = itertools.cycle([16, 64, 400, 112])
    for number, size in enumerate(cases.sizes_of(window)):
        width, heads = next(channels)
        x = torch.randn(1 + number % 2, *size, width)
        assert_same(x, parameters(width, next(hidden), depthwise=number % 3 > 0), heads, window)


@pytest.mark.parametrize("frames", [1, 2, 5, 16])
@pytest.mark.parametrize("depthwise", [True, False])
def test_clips(compiled_backend, frames, depthwise):
    for window, size in [((2, 3), (5, 7)), ((7, 7), (9, 6)), ((4, 4), (4, 4))]:
        assert_same(torch.randn(2, frames, *size, 32), parameters(32, 48, depthwise), 2, window)


@given(
    batch=st.integers(0, 2),
    frames=st.none() | st.integers(1, 4),
    sides=st.tuples(*[st.integers(1, 20)] * 4),
    heads=st.sampled_from([1, 2, 4, 8, 16]),
    sixteens=st.tuples(st.integers(1, 6), st.integers(1, 30)),
    depthwise=st.booleans(),
    layout=st.sampled_from(cases.LAYOUTS),
)
@settings(max_examples=15, deadline=None, derandomize=True, database=None)
def check_random_case(batch, frames, sides, heads, sixteens, depthwise, layout):
    channels, hidden = (16 * n for n in sixteens)
    shape = (batch, *([] if frames is None else [frames]), *sides[:2], channels)
    x = lay_out(torch.randn(shape), layout)
    assert_same(x, parameters(channels, hidden, depthwise), heads, sides[2:])


def test_random_cases(compiled_backend):
    check_random_case()


@pytest.mark.parametrize("layout", cases.LAYOUTS)
def test_layouts_of_map_and_weights(compiled_backend, layout):
    p = parameters(32, 64)
    assert_same(lay_out(torch.randn(2, 9, 8, 32), layout), p, 2, (4, 4))
    strided = BlockParameters(
        *(
            w.t().contiguous().t() if w.dim() == 2 else lay_out(w[None], "strided channels")[0]
            for w in p
        )
    )
    assert_same(lay_out(torch.randn(2, 9, 8, 32), layout), strided, 2, (4, 4))
    last = p._replace(
        depthwise_weight=p.depthwise_weight.to(memory_format=torch.channels_last),
        depthwise_bias=None,
    )
    assert_same(lay_out(torch.randn(2, 3, 9, 8, 32), layout), last, 2, (4, 4))


@pytest.mark.parametrize("sides", [(0, 9, 8), (0, 2, 9, 8), (1, 1, 1), (1, 1, 1, 1)])
def test_no_image_and_one_token(compiled_backend, sides):
    assert_same(torch.randn(*sides, 32), parameters(32, 64), 2, (7, 7))


def test_any_number_of_threads(compiled_backend):
    threads = torch.get_num_threads()
    try:
        for shape, window in [((3, 23, 17, 48), (5, 5)), ((1, 4, 19, 20, 48), (9, 9))]:
            x, p = torch.randn(shape), parameters(48, 192)
            results = []
            for number in (1, 2, 2, 3):
                torch.set_num_threads(number)
                results.append(iwin_block(x, p, 3, window, EPS))
            assert all(torch.equal(results[0], other) for other in results[1:])
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("depthwise", [True, False])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_none_reach_what_they_must(compiled_backend, depthwise, bad):
    """Their window, and the neighbours that the convolution sees."""
    window, place = 5, (3, 7)
    p = parameters(32, 64, depthwise)
    x = torch.randn(1, 2 * window, 2 * window, 32)
    reached = torch.zeros(2 * window, 2 * window, dtype=torch.bool)
    reached[place[0] % 2 :: 2, place[1] % 2 :: 2] = True
    if depthwise:
        reached[place[0] - 1 : place[0] + 2, place[1] - 1 : place[1] + 2] = True
    plain = iwin_block(x, p, 2, (window, window), EPS)
    x[0, place[0], place[1], 4] = bad
    out = iwin_block(x, p, 2, (window, window), EPS)
    assert out[0, reached].isnan().all()
    assert torch.equal(out[0, ~reached], plain[0, ~reached])


def test_tokens_far_from_zero(compiled_backend):
    """The variance is that of the differences from the mean, not a difference of large numbers."""
    x = 1000 + torch.randn(1, 8, 8, 32)
    out = iwin_block(x, p := parameters(32, 64), 2, (4, 4), EPS)
    truth = part_by_part(x.double(), in_float64(p), 2, (4, 4))
    torch.testing.assert_close(out.double() - 1000, truth - 1000, rtol=2e-3, atol=2e-3)


def test_equal_channels_are_normalised_to_the_bias(compiled_backend):
    assert_same(torch.zeros(1, 5, 6, 32), parameters(32, 64), 2, (4, 4))
    assert_same(torch.full((1, 5, 6, 32), 3.0), parameters(32, 64), 2, (4, 4))


@needs_extension
def test_flops_are_those_of_the_parts():
    x, p = torch.randn(2, 9, 10, 32), parameters(32, 64)
    counts = []
    for function in (
        lambda: iwin_block(x, p, 2, (4, 4), EPS),
        lambda: part_by_part(x, p, 2, (4, 4)),
    ):
        with FlopCounterMode(display=False) as counter:
            function()
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0


@needs_extension
@pytest.mark.parametrize("depthwise", [True, False])
def test_opcheck(depthwise):
    for shape in [(2, 5, 6, 16), (1, 2, 3, 4, 16)]:
        arguments = (torch.randn(shape), *parameters(16, 32, depthwise), 2, (2, 3), EPS)
        torch.library.opcheck(torch.ops.iwin_d2.iwin_block.default, arguments)


@needs_extension
@pytest.mark.parametrize(
    ("x", "heads", "hidden", "reason"),
    [
        (torch.zeros(1, 4, 4, 24), 1, 64, "multiples of 16, not 24 with 64 hidden"),
        (torch.zeros(1, 4, 4, 32), 1, 72, "multiples of 16, not 32 with 72 hidden"),
        (torch.zeros(1, 4, 4, 144), 1, 64, "head dimensions up to 128"),
        (torch.zeros(1, 4, 4, 32).double(), 1, 64, "float32 on cpu, not float64"),
        (torch.zeros(1, 4, 4, 32).bfloat16(), 1, 64, "float32 on cpu, not bfloat16"),
    ],
)
def test_what_is_not_served_says_why(x, heads, hidden, reason):
    assert reason in can_run(x, heads, hidden)


def changed(**tensors):
    return parameters(32, 64)._replace(**tensors)


MAP = torch.zeros(1, 4, 4, 32)
BAD = [
    ((torch.zeros(4, 4, 32), changed(), 2, (4, 4)), r"\[B, T, H, W, C\], got shape \(4, 4, 32\)"),
    ((torch.zeros(1, 0, 4, 32), changed(), 2, (4, 4)), r"empty side.*\(1, 0, 4, 32\)"),
    ((MAP, changed(), 5, (4, 4)), "32 channels.*5 heads"),
    ((MAP, changed(), 0, (4, 4)), "32 channels.*0 heads"),
    ((MAP, changed(), 2, (4, 0)), "window_size.*4, 0"),
    ((MAP, changed(fc1_weight=torch.zeros(32)), 2, (4, 4)), r"fc1_weight.*\(32,\)"),
    *(
        ((MAP, changed(**{name: torch.zeros(3, 7)}), 2, (4, 4)), rf"{name} .*\(3, 7\)")
        for name in BlockParameters._fields
        if name != "fc1_bias"
    ),
    (
        (MAP, changed(qkv_bias=torch.zeros(96).double()), 2, (4, 4)),
        r"qkv_bias.*([dD]ouble|float64)",
    ),
]


@needs_extension
@pytest.mark.parametrize("entrance", ["c++", "meta", "fake"])
@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_bad_arguments(entrance, arguments, message):
    def make(x):
        if not isinstance(x, torch.Tensor):
            return x
        return torch.empty(x.shape, dtype=x.dtype, device="meta" if entrance == "meta" else "cpu")

    x, p, heads, window = arguments

    def call():
        iwin_block(make(x), BlockParameters(*map(make, p)), heads, window, EPS)

    with pytest.raises(ValueError, match=message) as error:
        if entrance == "fake":
            with FakeTensorMode():
                call()
        else:
            call()
    assert "\n" not in str(error.value)
