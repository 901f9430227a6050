"""The backbone on a GPU: mixed precision, the same bits every time, checkpointing, DDP."""

import logging
import math

import pytest
import torch
import torch.distributed as dist
from small_models import (
    CALLS,
    DEVICE,
    DTYPES,
    Sum,
    assert_close,
    images,
    parameter_gradients,
    small_backbone,
)
from torch.nn.parallel import DistributedDataParallel

from iwin_d2.modeling import IwinTransformer3D
from iwin_d2.ops import backends, use_backend


def loss_and_gradients(model, x, dtype=None):
    """A number and its gradients, under autocast to `dtype`."""
    with torch.autocast(x.device.type, dtype, enabled=dtype is not None):
        loss = model(x)
    return loss, *parameter_gradients(model, loss)


def distance(results, truth):
    """How far two lists of tensors are apart, as a share of the second's length."""
    results, truth = ([x.detach().double().cpu() for x in some] for some in (results, truth))
    apart = sum((x - y).square().sum() for x, y in zip(results, truth, strict=True))
    return math.sqrt(apart / sum(y.square().sum() for y in truth))


@pytest.mark.parametrize("training", [False, True])
def test_as_on_the_cpu(training):
    model, x = small_backbone().train(training), images(device="cpu")
    with use_backend("reference"):
        expected = model(x)
    with use_backend("compiled"):
        found = model.to(DEVICE)(x.to(DEVICE))
    assert list(found) == list(expected)
    for name, value in found.items():
        assert_close(value, expected[name], 1e-4)


def test_gradients_as_on_the_cpu():
    model = Sum(small_backbone())
    with use_backend("reference"):
        truth = loss_and_gradients(model.double(), images(device="cpu").double())
    with use_backend("compiled"):
        found = loss_and_gradients(model.float().to(DEVICE), images())
    assert distance(found, truth) < 1e-4


@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
def test_autocast(dtype, caplog, monkeypatch):
    """As near to float64 as plain PyTorch is, and nothing runs in plain PyTorch."""
    monkeypatch.setattr(backends, "_logged", set())
    model = Sum(small_backbone())
    truth = loss_and_gradients(model.double(), images(device="cpu").double())
    model.float().to(DEVICE)
    with use_backend("auto"), caplog.at_level(logging.INFO, "iwin_d2"):
        caplog.clear()
        found = loss_and_gradients(model, images(), dtype)
        assert "plain PyTorch" not in caplog.text
    with use_backend("reference"):
        plain = loss_and_gradients(model, images(), dtype)
    assert all(x.dtype == torch.float32 and x.isfinite().all() for x in found)
    assert distance(found, truth) < 1.5 * distance(plain, truth) + 1e-4


def test_scaled_gradients_of_float16():
    model, x = Sum(small_backbone()).to(DEVICE), images()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    scaler = torch.amp.GradScaler(DEVICE)
    losses = []
    for _ in range(5):
        with torch.autocast(DEVICE, torch.float16):
            loss = model(x)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert all(p.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("call", CALLS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_same_bits_in_twenty_runs(call, dtype):
    inputs = call.inputs(dtype, requires_grad=True)
    with use_backend("compiled"):
        first = call.gradients(inputs)
        for _ in range(19):
            for x, y in zip(call.gradients(inputs), first):
                assert torch.equal(x, y)


@pytest.mark.parametrize("dtype", [None, torch.bfloat16], ids=str)
def test_the_same_bits_in_twenty_passes(dtype, deterministic):
    model, x = Sum(small_backbone()).to(DEVICE), images()
    first = loss_and_gradients(model, x, dtype)
    for _ in range(19):
        for found, y in zip(loss_and_gradients(model, x, dtype), first):
            assert torch.equal(found, y)


@pytest.mark.parametrize("checkpointed", [True, [False, True, False, True]])
def test_activation_checkpointing(checkpointed):
    found = []
    for use in (False, checkpointed):
        model = Sum(small_backbone(use_checkpoint=use)).to(DEVICE).train()
        found.append(loss_and_gradients(model, images()))
    for x, y in zip(*found):
        assert_close(x, y, 1e-5)


def test_clips_as_on_the_cpu():
    torch.manual_seed(0)
    settings = {"embed_dim": 32, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 4, 8]}
    model = IwinTransformer3D(**settings, num_frames=8).train()
    clips = torch.randn(1, 3, 8, 60, 68)
    with use_backend("reference"):
        truth = model(clips)
        truth = (truth, *parameter_gradients(model, truth.sin().sum()))
    model.to(DEVICE)
    with use_backend("compiled"):
        found = model(clips.to(DEVICE))
        found = (found, *parameter_gradients(model, found.sin().sum()))
    assert distance(found, truth) < 1e-4


@pytest.fixture
def one_process(tmp_path, monkeypatch):
    """A group of this process alone, by NCCL."""
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "lo")
    dist.init_process_group("nccl", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("static_graph", [False, True])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16], ids=str)
def test_distributed_data_parallel(one_process, dtype, static_graph):
    model = Sum(small_backbone(freeze_at=1, use_checkpoint=static_graph)).to(DEVICE).train()
    wanted = [p for p in model.parameters() if p.requires_grad]
    parallel = DistributedDataParallel(model, device_ids=[0], static_graph=static_graph)
    for _ in range(2):
        with torch.autocast(DEVICE, dtype, enabled=dtype is not None):
            loss = parallel(images())
        parallel.zero_grad()
        loss.backward()
    with torch.autocast(DEVICE, dtype, enabled=dtype is not None):
        expected = torch.autograd.grad(model(images()), wanted)
    for p, x in zip(wanted, expected):
        assert_close(p.grad, x, 1e-5 if dtype is None else 1e-2)
