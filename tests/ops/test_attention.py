"""One tester for every backend of the attention: values and gradients, in float64's eyes."""

import functools

import cases
import pytest
import torch
from cases import TOLERANCES, Case
from definition import slow_attention
from hypothesis import given, settings
from hypothesis import strategies as st
from op_backends import EMULATED, REFERENCE


def run(backend, case, inputs):
    """Return the output and the gradients of qkv and pad_qkv (if there is one), on the CPU."""
    qkv, pad, grad = (None if x is None else x.to(backend.device) for x in inputs)
    leaves = [x.detach().requires_grad_() for x in (qkv, pad) if x is not None]
    out = backend.attention(leaves[0], case.heads, case.window, *leaves[1:], scale=case.scale)
    gradients = torch.autograd.grad(out, leaves, grad, materialize_grads=True)
    return tuple(x.detach().cpu() for x in (out, *gradients))


@functools.cache
def expected(case, dtype):
    """What the reference gives in float64 for these inputs of `dtype`."""
    return run(REFERENCE, case, [None if x is None else x.double() for x in case.inputs(dtype)])


def assert_equal_to_reference(backend, case, dtype):
    """Compare values and gradients, and see that nothing was written to."""
    inputs = case.inputs(dtype)
    before = [None if x is None else x.clone() for x in inputs]
    results = run(backend, case, inputs)
    for index, (result, truth) in enumerate(zip(results, expected(case, dtype), strict=True)):
        assert result.dtype == dtype and result.shape == truth.shape
        tolerance = TOLERANCES[dtype][min(index, 1)]
        # The gradient of pad_qkv is a sum over all tokens of the padding: its rounding errors grow
        # with it. So do the errors of weights that are rounded, too.
        rounded = backend.rounds_weights and dtype.itemsize == 2
        grows = index == 2 or (index == 1 and rounded)
        size = max(1.0, truth.abs().max().item()) if grows and truth.numel() else 1.0
        torch.testing.assert_close(result.double(), truth, rtol=tolerance, atol=tolerance * size)
    for x, y in zip(inputs, before):
        assert x is None or torch.equal(x, y)


SLOW_ENOUGH = [c for c in cases.ALL if c.size[0] * c.size[1] * (c.frames or 1) * c.heads < 400]


@pytest.mark.parametrize("case", cases.some(SLOW_ENOUGH, 5), ids=str)
def test_the_reference_is_the_slow_loop(case):
    class Slow:
        device = "cpu"

        @staticmethod
        def attention(qkv, num_heads, window, pad=None, scale=None):
            frames = qkv if qkv.dim() == 5 else qkv.unsqueeze(1)
            out = slow_attention(frames, num_heads, window, pad, scale)
            return out if qkv.dim() == 5 else out.squeeze(1)

    for truth, result in zip(
        run(Slow, case, case.inputs(torch.float64)), expected(case, torch.float64)
    ):
        torch.testing.assert_close(result, truth, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("case", cases.ALL, ids=str)
def test_float32(attention_backend, case):
    assert_equal_to_reference(attention_backend, case, torch.float32)


@pytest.mark.parametrize("case", cases.PUBLISHED + cases.some(cases.ALL, 3) + cases.EMPTY, ids=str)
def test_bfloat16(attention_backend, case):
    assert_equal_to_reference(attention_backend, case, torch.bfloat16)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16], ids=str)
@pytest.mark.parametrize("case", cases.some(cases.ALL, 3, offset=1) + cases.EMPTY, ids=str)
def test_other_dtypes(attention_backend, case, dtype):
    assert_equal_to_reference(attention_backend, case, dtype)


@pytest.mark.parametrize("layout", cases.LAYOUTS)
@pytest.mark.parametrize("grad_layout", cases.LAYOUTS)
def test_every_layout_of_input_and_gradient(attention_backend, layout, grad_layout):
    for frames in (None, 2):
        case = Case((4, 3), (9, 7), 2, frames, layout=layout, grad_layout=grad_layout)
        assert_equal_to_reference(attention_backend, case, torch.float32)


def test_every_head_dimension(attention_backend):
    for head_dim in range(8, 129, 8):
        case = Case((3, 4), (5, 9), heads=2, head_dim=head_dim, pad=head_dim % 16 == 0)
        assert_equal_to_reference(attention_backend, case, torch.float32)


@pytest.mark.parametrize("heads", range(1, 33))
def test_every_number_of_heads(attention_backend, heads):
    assert_equal_to_reference(attention_backend, Case((4, 4), (5, 6), heads=heads), torch.float32)


@given(
    window=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    batch=st.integers(0, 3),
    frames=st.none() | st.integers(1, 4),
    heads=st.integers(1, 4),
    head_dim=st.sampled_from(range(8, 41, 8)),
    pad=st.booleans(),
    scale=st.none() | st.floats(-1, 1),
    layout=st.sampled_from(cases.LAYOUTS),
    grad_layout=st.sampled_from(cases.LAYOUTS),
)
@settings(max_examples=60, deadline=None, derandomize=True, database=None)
def check_random_case(backend, **arguments):
    assert_equal_to_reference(backend, Case(**arguments), torch.float32)


def test_random_cases(attention_backend):
    check_random_case(attention_backend)


@pytest.mark.parametrize("case", cases.FEW, ids=str)
@pytest.mark.parametrize("dtype", [torch.float64], ids=str)
def test_gradcheck(attention_backend, case, dtype):
    def attend(qkv, pad=None):
        return attention_backend.attention(qkv, case.heads, case.window, pad, scale=case.scale)

    qkv, pad, _ = case.inputs(dtype)
    leaves = [x.to(attention_backend.device).requires_grad_() for x in (qkv, pad) if x is not None]
    assert torch.autograd.gradcheck(attend, leaves)


def test_only_the_gradients_asked_for(attention_backend):
    case = Case((4, 3), (9, 7))
    _, grad_qkv, grad_pad = expected(case, torch.float32)
    for wanted in (0, 1):
        inputs = [x.to(attention_backend.device) for x in case.inputs(torch.float32)]
        inputs[wanted].requires_grad_()
        out = attention_backend.attention(inputs[0], case.heads, case.window, inputs[1])
        out.backward(inputs[2])
        result, truth = inputs[wanted].grad.cpu().double(), (grad_qkv, grad_pad)[wanted]
        torch.testing.assert_close(result, truth, rtol=1e-4, atol=1e-4)
        assert inputs[1 - wanted].grad is None


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_without_padding_the_gradient_of_its_row_is_zero(attention_backend, dtype):
    _, _, grad_pad = run(attention_backend, case := Case((3, 3), (6, 9)), case.inputs(dtype))
    assert grad_pad.count_nonzero() == 0


@pytest.mark.parametrize("frames", [None, 3])
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_threads_and_repetition_change_no_bit(compiled_backend, dtype, frames):
    # Enough windows that sums over them would be shared out, too.
    case = Case((5, 5), (23, 17), 1 if EMULATED else 8, frames, heads=3, head_dim=16)
    threads = torch.get_num_threads()
    results = []
    try:
        for number in (1, 2, 2, 3):
            torch.set_num_threads(number)
            results.append(run(compiled_backend, case, case.inputs(dtype)))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        for x, y in zip(results[0], other):
            assert torch.equal(x, y)


def one_window_of(window):
    """A map of 2 x 2 windows, and which of its tokens lie in window (0, 1)."""
    inside = torch.zeros(2 * window, 2 * window, dtype=torch.bool)
    inside[0::2, 1::2] = True
    return (2 * window, 2 * window), inside


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("window", [3, 7])
def test_numbers_that_are_none_reach_their_window_and_no_other(attention_backend, window, bad):
    """One bad value in q, k or v of head 1; the other head and other windows stay as they are."""
    heads, head_dim = 2, 16
    size, inside = one_window_of(window)
    torch.manual_seed(0)
    clean = torch.randn(1, *size, 3 * heads * head_dim)
    place = (0, 2, 3)  # in window (0, 1)
    assert inside[place[1:]]

    def attend(qkv):
        out = attention_backend.attention(qkv.to(attention_backend.device), heads, (window, window))
        return out.cpu().unflatten(-1, (heads, head_dim))

    plain = attend(clean)
    token = torch.zeros_like(inside)
    token[place[1:]] = True
    for part, reached in enumerate((token, inside, inside)):
        qkv = clean.clone()
        qkv.unflatten(-1, (3, heads, head_dim))[(*place, part, 1, 5)] = bad
        out = attend(qkv)
        assert torch.equal(out[..., 0, :], plain[..., 0, :])
        assert torch.equal(out[0, ~reached], plain[0, ~reached])
        # PyTorch's own attention on the CPU makes zeros, not NaN, of a short row of logits that are
        # all NaN; that it spreads no further is all that can be asked of it.
        if attention_backend.compiled or part == 2:
            changed, before = out[0, reached][:, 1], plain[0, reached][:, 1]
            if attention_backend.keeps_infinities or bad != bad:
                assert_reached(part, bad, changed, before, clean[0, inside])
            else:
                assert not changed.isfinite().all(-1).any()


def assert_reached(part, bad, changed, plain, tokens):
    """Where channel 5 of q, k or v (`part`) of one token is bad, so are these rows of its head."""
    if part == 2:  # a weighted sum of the values of this channel: as bad as the value itself
        assert torch.equal(changed[:, 5].isnan(), torch.full((len(changed),), bad != bad))
        assert not changed[:, 5].isfinite().any()
        others = [channel for channel in range(changed.shape[1]) if channel != 5]
        assert torch.equal(changed[:, others], plain[:, others])
    elif bad != bad or part == 0:  # all logits of a row are NaN or infinite
        assert changed.isnan().all()
    else:  # infinite by the sign of the query's channel 5 of head 1: NaN, or a weight of zero
        positive = (tokens[:, changed.shape[1] + 5] > 0) == (bad > 0)
        assert torch.equal(changed.isnan().all(-1), positive)
        assert changed[~positive].isfinite().all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("part", [1, 2])
def test_a_bad_row_for_the_padding_reaches_windows_that_have_some(compiled_backend, part, bad):
    """As key or value; nobody sees the output of the padding's queries."""
    heads, head_dim = 2, 16
    qkv, pad = torch.randn(1, 5, 6, 96).abs(), torch.randn(96)

    def attend(pad):
        device = compiled_backend.device
        out = compiled_backend.attention(qkv.to(device), heads, (3, 3), pad.to(device))
        return out.cpu().unflatten(-1, (heads, head_dim))

    plain = attend(pad)
    bad_pad = pad.clone()
    bad_pad.unflatten(0, (3, heads, head_dim))[0] = bad  # queries
    assert torch.equal(attend(bad_pad), plain)
    bad_pad = pad.clone()
    bad_pad.unflatten(0, (3, heads, head_dim))[part, 1, 5] = bad
    out = attend(bad_pad)
    assert torch.equal(out[..., 0, :], plain[..., 0, :])
    # Rows 0, 2, 4 are whole windows; 1 and 3 are padded to three.
    assert torch.equal(out[:, 0::2], plain[:, 0::2])
    changed = out[:, 1::2, :, 1]
    if part == 2:
        assert not changed[..., 5].isfinite().any()
    elif bad == bad and not compiled_backend.keeps_infinities:
        assert not changed.isfinite().any()
    elif bad == -float("inf"):  # against positive queries: as if there were no padding
        rows = qkv[0, 1::2].view(2, 3, 2, 3, heads, head_dim)[..., 1, :]
        for column in range(2):
            q, k, v = rows[:, :, column].reshape(6, 3, head_dim).unbind(1)
            truth = (q @ k.T * head_dim**-0.5).softmax(-1) @ v
            result = changed[0, :, column::2].reshape(6, head_dim)
            torch.testing.assert_close(result, truth, rtol=1e-5, atol=1e-5)
    else:
        assert changed.isnan().all()


@pytest.mark.parametrize("frames", [None, 16])
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_padding_that_outweighs_the_map(attention_backend, dtype, frames):
    """One token a frame, up to 255 of padding, whose logits are the largest."""
    case = Case((7, 7) if frames else (16, 16), (1, 1), 2, frames, heads=2, head_dim=16)
    qkv, pad, grad = case.inputs(torch.float64)
    qkv[..., :32] = pad[32:64] + 0.1 * qkv[..., :32]  # queries that look for the padding
    inputs = [x.to(dtype) for x in (qkv, pad, grad)]
    truth = run(REFERENCE, case, [x.double() for x in inputs])
    for index, (result, x) in enumerate(zip(run(attention_backend, case, inputs), truth)):
        tolerance = TOLERANCES[dtype][min(index, 1)]
        largest = max(1.0, x.abs().max().item())
        torch.testing.assert_close(result.double(), x, rtol=tolerance, atol=tolerance * largest)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_gradients_of_bad_numbers_stay_in_their_window(attention_backend, bad):
    size, inside = one_window_of(4)
    torch.manual_seed(0)
    qkv, grad = torch.randn(1, *size, 3 * 16), torch.randn(1, *size, 16)
    case = Case((4, 4), size, heads=1, head_dim=16, pad=False)
    _, plain = run(attention_backend, case, (qkv, None, grad))
    for tensor in (qkv, grad):
        changed = tensor.clone()
        changed[0, 2, 3, 5] = bad
        inputs = (changed, None, grad) if tensor is qkv else (qkv, None, changed)
        _, result = run(attention_backend, case, inputs)
        assert torch.equal(result[0, ~inside], plain[0, ~inside])
        assert not result[0, inside].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("size", [(6, 9), (5, 7)])
def test_logits_far_apart(attention_backend, dtype, size):
    """Whole numbers and powers of two, so that every logit is exact: the softmax is an argmax."""
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randint(-127, 128, (2, *size, 3 * 32), generator=generator).to(dtype)
    qkv[..., : 2 * 32] *= 2.0**40 if dtype == torch.float64 else 2.0**20
    pad = torch.zeros(3 * 32, dtype=dtype)
    case = Case((3, 3), size, heads=2, head_dim=16, scale=0.25)
    grad = torch.randint(-3, 4, (2, *size, 32), generator=generator).to(dtype)
    truth = run(REFERENCE, case, [x.double() for x in (qkv, pad, grad)])
    results = run(attention_backend, case, (qkv, pad, grad))
    assert all(x.isfinite().all() for x in results)
    tolerance = TOLERANCES[dtype][0]
    for result, x in zip(results, truth):
        largest = max(x.abs().max().item(), 1.0)
        torch.testing.assert_close(result.double(), x, rtol=tolerance, atol=tolerance * largest)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_equal_logits_give_the_mean(attention_backend, dtype):
    qkv = torch.randn(2, 8, 12, 3 * 32, dtype=torch.float64)
    qkv[..., :32] = 0
    qkv = qkv.to(dtype)
    out = attention_backend.attention(qkv.to(attention_backend.device), 4, (4, 4)).cpu()
    values = qkv[..., 64:].double().view(2, 4, 2, 4, 3, 32)
    means = values.mean((1, 3), keepdim=True).expand_as(values).reshape(2, 8, 12, 32)
    tolerance = TOLERANCES[dtype][0]
    torch.testing.assert_close(out.double(), means, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize(("frames", "window"), [(16, 7), (None, 16), (1, 3)])
def test_errors_of_rounding_do_not_add_up_over_equal_tokens(
    attention_backend, dtype, frames, window
):
    """Tokens that are all the same, padding too: the mean of their values is that value."""
    pad = torch.randn(3 * 32, generator=torch.Generator().manual_seed(0)).to(dtype)
    qkv = pad.expand(2, *(() if frames is None else (frames,)), 2, 3, 3 * 32)
    device = attention_backend.device
    out = attention_backend.attention(qkv.to(device), 4, (window, window), pad.to(device)).cpu()
    tolerance = TOLERANCES[dtype][0]
    torch.testing.assert_close(out, pad[64:].expand_as(out), rtol=tolerance, atol=0)


def test_logits_of_minus_infinity_have_no_weight(attention_backend):
    """A key of -inf against queries that are all positive: as if the token were not there."""
    torch.manual_seed(0)
    qkv = torch.randn(1, 4, 4, 3 * 8)
    qkv[..., :8] = qkv[..., :8].abs() + 0.1
    qkv[0, 1, 2, 8:16] = -float("inf")
    out = attention_backend.attention(qkv.to(attention_backend.device), 1, (4, 4)).cpu()
    tokens = qkv.view(16, 3, 8).unbind(1)
    kept = [n for n in range(16) if n != 1 * 4 + 2]
    q, k, v = tokens[0], tokens[1][kept], tokens[2][kept]
    truth = (q @ k.T * 8**-0.5).softmax(-1) @ v
    if attention_backend.keeps_infinities:
        torch.testing.assert_close(out.view(16, 8), truth, rtol=1e-5, atol=1e-5)
    else:
        assert not out.isfinite().any()


def test_results_are_contiguous(compiled_backend):
    for case in cases.some(cases.ALL, 15):
        inputs = [
            None if x is None else x.to(compiled_backend.device) for x in case.inputs(torch.float32)
        ]
        out = compiled_backend.attention(inputs[0], case.heads, case.window, inputs[1])
        assert out.is_contiguous()
        arguments = (case.heads, case.window, inputs[1], 1.0)
        for grad in torch.ops.iwin_d2.attention_backward(inputs[2], inputs[0], *arguments):
            assert grad.is_contiguous()
