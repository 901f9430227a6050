"""UPerNet T against torchvision's DeepLabV3; where its time goes; sliding windows' memory.

All of them with random weights and 150 classes, on random images and labels. Inference ends with
the class of each pixel.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.segmentation import deeplabv3_resnet50

from .. import model_zoo
from ..d2.config import instantiate
from ..d2.utils.events import EventStorage
from ..modeling.segmentation_inference import SegmenterInference, predicted_labels
from .parts import PARTS, count_flops_by_part, seconds_by_part
from .profile import profile_in_turn
from .rates import time_with_rates
from .table import table
from .timing import in_own_process, memory_status
from .whole_models import Run, compare

__all__ = ["benchmark_segmentation"]

OURS = "ours: UPerNet, Iwin-T"
SCORES = "ours, all scores at full size first"
CHECKPOINTING = "ours with activation checkpointing"
TORCHVISION = "torchvision deeplabv3_resnet50"
INFERENCE = ((512, 512), (512, 2048))
TRAINING = (512, 512)
SLIDING = (512, 2048, 4096)
WINDOW, STRIDE = 512, 341
_CONFIG = "semantic_segmentation/upernet_iwin_t_512_160k_ade20k"
_CLASSES = 150
_IGNORED = 255
_AUXILIARY = 0.4  # weight of its loss, ours and torchvision's

Size = tuple[int, int]
Make = Callable[[], nn.Module]


def benchmark_segmentation(rounds: int = 5) -> Iterator[str]:
    """Compare inference and training, say where the time goes, and measure sliding windows.

    Args:
        rounds: timings of each; sliding windows are timed once.
    """
    for size in INFERENCE:
        yield from compare_inference({OURS: _ours, TORCHVISION: _torchvision}, size, rounds)
    makers = {OURS: _ours, CHECKPOINTING: _checkpointing, TORCHVISION: _torchvision}
    yield from compare_training(makers, TRAINING, rounds)
    for size in INFERENCE:
        yield from profile_inference(_ours, size, rounds)
    yield from profile_training({OURS: _ours, TORCHVISION: _torchvision}, TRAINING, rounds)
    yield from measure_sliding_windows(_ours, SLIDING, (WINDOW, STRIDE))


def compare_inference(makers: dict[str, Make], size: Size, rounds: int) -> list[str]:
    """Time and memory from one image to the class of each pixel; the first model is ours."""
    builds = {name: partial(build_inference, make, size) for name, make in makers.items()}
    ours = next(iter(makers.values()))
    builds[SCORES] = partial(build_inference, ours, size, scores=True)
    return compare(f"UPerNet, inference, 1x{_sides(size)}", builds, rounds)


def compare_training(makers: dict[str, Make], size: Size, rounds: int) -> list[str]:
    """Time and memory of an iteration on two images, with the auxiliary head's loss."""
    builds = {name: partial(build_training, make, size) for name, make in makers.items()}
    return compare(f"UPerNet, training iteration, 2x{_sides(size)}", builds, rounds)


def profile_inference(make: Make, size: Size, rounds: int) -> list[str]:
    """Where the time of UPerNet goes, part by part, and how fast each is."""
    model, item = _model(make), _item(size)
    run = partial(_labels, SegmenterInference(model, labels_only=True), item)
    flops = count_flops_by_part(model, run)
    found: list[dict[str, float]] = []

    def once():
        found.append(seconds_by_part(model, run))

    _, rates = time_with_rates({"run": once}, rounds)
    found = found[-rounds:]
    medians = {part: statistics.median(taken[part] for taken in found) for part in PARTS}
    whole = sum(medians.values())
    rows = [
        (
            part,
            f"{1000 * seconds:.0f}",
            f"{100 * seconds / whole:.0f} %",
            f"{flops[part] / 1e9:.1f}",
            f"{100 * flops[part] / seconds / rates.gemm:.0f} %",
        )
        for part, seconds in medians.items()
    ]
    header = ("", "median ms", "share", "GFLOP", "of the GEMM rate")
    title = f"UPerNet, inference, 1x{_sides(size)}: where the time goes"
    note = (
        "The convolution of all levels does fewer FLOPs on the processor than are counted. In the "
        f"same rounds: {rates.describe()}."
    )
    return table(title, header, rows, note)


def profile_training(makers: dict[str, Make], size: Size, rounds: int) -> list[str]:
    """Where the time of training iterations goes, by kind of operator."""
    runs = {name: build_training(make, size) for name, make in makers.items()}
    title = f"UPerNet, training iteration, 2x{_sides(size)}: where the time goes"
    return profile_in_turn(title, runs, rounds)


def measure_sliding_windows(
    make: Make, sides: tuple[int, ...], windows: tuple[int, int]
) -> Iterator[str]:
    """Time and memory of inference by sliding windows on square images of these sides.

    Args:
        make: makes the segmenter.
        sides: of the images, in pixels.
        windows: their side and stride.
    """
    rows = []
    for side in sides:
        passes, seconds, peak = in_own_process(partial(_slide, make, side, windows))
        labels = 4 * side**2 / 2**20
        scores = _CLASSES * labels
        rows.append(
            (
                f"{side}x{side}",
                f"{passes}",
                f"{seconds:.1f}",
                f"{peak:.0f}",
                f"{labels:.0f}",
                f"{peak - labels:.0f}",
                f"{scores:.0f}",
            )
        )
    header = (
        "image",
        "windows",
        "s",
        "peak MiB",
        "the labels' MiB",
        "peak without the labels",
        "MiB of all scores, never held",
    )
    note = "Beyond the model and the image. One run each, in a process of its own."
    window, stride = windows
    yield from table(
        f"UPerNet, sliding windows of {window}x{window}, stride {stride}", header, rows, note
    )


def build_inference(make: Make, size: Size, scores: bool = False) -> Run:
    """Build a model; return what finds the class of each pixel of an image.

    With `scores`, ours brings all scores to the image's size first, as the plain model does.
    """
    model = _model(make)
    if make is _torchvision:
        model.aux_classifier = None  # which runs in inference, too
        return partial(_labels_of_torchvision, model, _item(size))
    runs = model if scores else SegmenterInference(model, labels_only=True)
    return partial(_labels, runs, _item(size))


def build_training(make: Make, size: Size) -> Run:
    """Build a model; return what trains it for an iteration on two images and gives the loss."""
    model = _model(make).train()
    # As little as that: an iteration more or less is to change no time.
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-7)
    losses = _losses_of_torchvision if make is _torchvision else _losses
    return partial(_train, model, losses, [_item(size, seed) for seed in range(2)], optimizer)


def _model(make: Make) -> nn.Module:
    torch.manual_seed(0)
    return make().eval()


def _ours() -> nn.Module:
    return instantiate(model_zoo.get_config(_CONFIG).model)


def _checkpointing() -> nn.Module:
    cfg = model_zoo.get_config(_CONFIG).model
    cfg.backbone.use_checkpoint = True
    return instantiate(cfg)


def _torchvision() -> nn.Module:
    return deeplabv3_resnet50(
        weights=None, weights_backbone=None, num_classes=_CLASSES, aux_loss=True
    )


def _item(size: Size, seed: int = 0) -> dict[str, Tensor]:
    """A random image, uint8 [3, H, W], and labels, some pixels of which are to be ignored."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, _CLASSES, size, generator=generator)
    labels[: size[0] // 16] = _IGNORED
    image = torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator)
    return {"image": image, "sem_seg": labels}


@torch.no_grad()
def _labels(model: nn.Module, item: dict[str, Tensor]) -> Tensor:
    return predicted_labels(model([{"image": item["image"]}])[0])


@torch.no_grad()
def _labels_of_torchvision(model: nn.Module, item: dict[str, Tensor]) -> Tensor:
    return predicted_labels({"sem_seg": model(_normalised([item]))["out"][0]})


def _normalised(items: list[dict[str, Tensor]]) -> Tensor:
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in ((123.7, 116.3, 103.5), (58.4, 57.1, 57.4)))
    return torch.stack([(item["image"] - mean) / std for item in items])


def _losses(model: nn.Module, items: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    with EventStorage():
        return model(items)


def _losses_of_torchvision(model: nn.Module, items: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    labels = torch.stack([item["sem_seg"] for item in items])
    scores = model(_normalised(items))
    loss, auxiliary = (
        F.cross_entropy(scores[name], labels, ignore_index=_IGNORED) for name in ("out", "aux")
    )
    return {"loss": loss, "aux": _AUXILIARY * auxiliary}


def _train(model: nn.Module, losses: Callable, items: list, optimizer) -> float:
    loss = sum(losses(model, items).values())
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.item()


def _slide(make: Make, side: int, windows: tuple[int, int]) -> tuple[int, float, float]:
    """In this process: windows, seconds and peak memory in MiB of one pass over an image."""
    model, item = _model(make), _item((side, side))
    seen = []
    model.backbone.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    run = partial(_labels, SegmenterInference(model, *windows), item)
    before = memory_status("VmRSS")
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # forget the peak so far
    start = time.perf_counter()
    run()
    seconds = time.perf_counter() - start
    return sum(seen), seconds, memory_status("VmHWM") - before


def _sides(size: Size) -> str:
    return "x".join(map(str, size))
