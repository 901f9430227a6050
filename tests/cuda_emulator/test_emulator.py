"""The emulator itself: threads, barriers and matrices as CUDA has them, and what it must find."""

import shutil

import build_emulated
import pytest
import torch

ERROR = "the emulator: block .*"


@pytest.fixture(scope="module")
def run():
    """Start a kernel of test_kernels.cpp by its name."""
    if shutil.which("c++") is None:
        pytest.skip("needs a C++ compiler")
    library = build_emulated.ROOT / "build/emulator_tests/kernels.so"
    build_emulated.build(library, kernels=[build_emulated.HERE / "test_kernels.cpp"])
    torch.ops.load_library(library)

    def run(kernel, *tensors, blocks=1, threads=32, shared=0, offset=0):
        operator = torch.ops.iwin_d2_emulator_tests.run
        operator(kernel, list(tensors), blocks, threads, shared, offset)

    return run


@pytest.fixture(autouse=True)
def on_one_thread():
    """So that who comes first is what the emulator has chosen."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(("blocks", "threads"), [(1, 32), (3, 64), (2, 1024), (1000, 32)])
def test_every_thread_runs_once_and_knows_its_place(run, blocks, threads):
    numbers = torch.zeros(blocks, threads, dtype=torch.int64)
    run("number_threads", numbers, blocks=blocks, threads=threads)
    block, thread = torch.meshgrid(torch.arange(blocks), torch.arange(threads), indexing="ij")
    assert torch.equal(numbers, block * 1000000 + blocks * 10000 + threads * 10 + thread % 10)


def test_the_order_is_another_one_each_time(run):
    blocks, threads = 8, 128
    orders = []
    for _ in range(4):
        places = torch.zeros(1 + blocks * threads, dtype=torch.int64)
        run("note_order", places, blocks=blocks, threads=threads)
        assert torch.equal(places[1:].sort().values, torch.arange(blocks * threads))
        orders.append(places[1:].view(blocks, threads // 32, 32))
    for first_of in (lambda x: x[:, 0, 0], lambda x: x[0, :, 0], lambda x: x[0, 0]):
        assert len({tuple(first_of(order).argsort().tolist()) for order in orders}) > 1


def test_grids_may_be_smaller_than_the_work(run):
    sizes = set()
    for _ in range(20):
        blocks = torch.full((9,), -1)
        run("number_items", blocks)
        sizes.add(int(blocks.max()) + 1)
        assert torch.equal(blocks, torch.arange(9) % (blocks.max() + 1))
    assert sizes > {1, 9}


@pytest.mark.parametrize("threads", [32, 128, 1024])
def test_barriers_of_the_block(run, threads):
    x = torch.randint(-4, 5, (5, threads)).float()
    result = torch.empty_like(x)
    run("sum_of_block", x, result, blocks=5, threads=threads, shared=threads // 8)
    assert torch.equal(result, (x.sum(1, keepdim=True) * threads).expand_as(x))


def test_several_threads_of_the_processor(run):
    torch.set_num_threads(3)
    test_barriers_of_the_block(run, 128)


def test_barriers_of_the_warp(run):
    x, result = torch.randn(2, 32), torch.empty(2, 32)
    run("rotate_lanes", x, result, threads=64, shared=256)
    assert torch.equal(result, x.roll(-1, 1))


def test_shuffles(run):
    x, result = torch.randn(4, 8), torch.empty(4, 8)
    run("maximum_and_first", x, result)
    assert torch.equal(result, (x.max(1, keepdim=True).values + x[0, 5]).expand(4, 8))


@pytest.mark.parametrize("kernel", ["sum_of_block", "rotate_lanes"])
def test_a_missing_barrier_is_found(run, kernel):
    x = torch.randn(128)
    for _ in range(10):
        with pytest.raises(RuntimeError, match=ERROR + r"in a race with thread \d+ \(addr2line"):
            run(f"{kernel} without a barrier", x, torch.empty(128), threads=128, shared=512)


def test_shared_memory_is_not_a_number_at_first(run):
    result = torch.zeros(32)
    run("read_shared", result, shared=128)
    assert result.isnan().all()


@pytest.mark.parametrize("offset", [1, -1])
def test_reading_and_writing_beside_shared_memory_is_found(run, offset):
    for arguments in (("read_shared", torch.empty(32)), ("write_shared",)):
        with pytest.raises(RuntimeError, match=ERROR + "outside the 128 bytes of shared memory"):
            run(*arguments, shared=128, offset=offset)


@pytest.mark.parametrize(
    ("kernel", "threads", "message"),
    [
        ("some_wait", 64, "1 warps wait at __syncthreads and 1 have left the kernel"),
        ("some_lanes_wait", 32, "lane 0 is at __syncthreads and lane 1 at the end of the kernel"),
        ("different_barriers", 32, "lane 0 is at __syncthreads and lane 1 at __syncwarp"),
        ("some_lanes_shuffle", 32, "lane 0 is at a shuffle and lane 1 at the end of the kernel"),
    ],
)
def test_threads_that_part_are_found(run, kernel, threads, message):
    with pytest.raises(RuntimeError, match=ERROR + message):
        run(kernel, torch.empty(64), threads=threads)
    test_barriers_of_the_block(run, 64)  # which nothing of that has harmed


def test_chunks(run):
    x, result = torch.randn(132), torch.empty(128)
    run("copy_chunk", x, result, offset=4)
    assert torch.equal(result, x[4:])
    with pytest.raises(RuntimeError, match=ERROR + "an address that is not aligned"):
        run("copy_chunk", x, result, offset=1)


def test_asynchronous_copies(run):
    x, result = torch.randn(32, 4), torch.empty(32, 4)
    run("copy_asynchronously", x, result, shared=512)
    assert torch.equal(result, x.roll(-1, 0))
    with pytest.raises(RuntimeError, match="has not waited for its copies"):
        run("copy_asynchronously without waiting", x, result, shared=512)
    with pytest.raises(RuntimeError, match=ERROR + "in a race with thread"):
        run("copy_asynchronously without a barrier", x, result, shared=512)


@pytest.mark.parametrize("threads", [0, 31, 1056])
def test_blocks_are_whole_warps(run, threads):
    with pytest.raises(RuntimeError, match=f"32 whole warps, got 1 blocks of {threads} threads"):
        run("some_wait", threads=threads)


def whole_numbers(*shape):
    """Numbers whose products and sums are exact."""
    return torch.randint(-8, 9, shape).float()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_products_of_16_bits(run, dtype):
    a, b, c = whole_numbers(16, 16), whole_numbers(16, 8), whole_numbers(16, 8)
    result = torch.empty(16, 8)
    run("multiply", a.to(dtype), b.to(dtype), c, result)
    assert torch.equal(result, a @ b + c)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_matrices_from_shared_memory(run, dtype):
    a, b, result = whole_numbers(16, 16), whole_numbers(16, 8), torch.empty(16, 8)
    arguments = ("load_and_multiply", a.to(dtype), b.to(dtype), result)
    run(*arguments, shared=1024)
    assert torch.equal(result, a @ b)
    with pytest.raises(RuntimeError, match=ERROR + "an address that is not aligned"):
        run(*arguments, shared=1024, offset=1)
    with pytest.raises(RuntimeError, match=ERROR + "an address that is not in shared memory"):
        run(*arguments, shared=1024, offset=320)


def test_products_of_tf32(run):
    a, b, c = whole_numbers(16, 8), whole_numbers(8, 8), whole_numbers(16, 8)
    result = torch.empty(16, 8)
    run("multiply_tf32", a, b, c, result)
    assert torch.equal(result, a @ b + c)
    with pytest.raises(RuntimeError, match=ERROR + "was not rounded to TF32"):
        run("multiply_tf32 without rounding", a + 2**-12, b, c, result)


def test_rounding_to_tf32(run):
    inf, nan = float("inf"), float("nan")
    unit = 2.0**-10
    exact = [1.0, -3.0, 1 + unit, 2.0**-126, inf, -inf, nan, 0.0]
    x = torch.tensor([*exact, 1 + unit / 2, -1 - unit / 2, 1 + unit * 0.499, 2.5 + unit * 1.01] * 2)
    rounded = [*exact, 1 + unit, -1 - unit, 1.0, 2.5 + 2 * unit]
    expected, result = torch.tensor(rounded * 2), torch.empty(24)
    x, result = (torch.cat((t, torch.zeros(8))) for t in (x, result))
    run("round_numbers", x, result)
    torch.testing.assert_close(result[:24], expected, rtol=0, atol=0, equal_nan=True)
