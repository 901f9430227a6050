"""What the operators are tried with: windows, sizes, heads, memory layouts, tolerances."""

import itertools
import math
import random
from dataclasses import dataclass, replace

import torch

TOLERANCES = {  # of the outputs, of the gradients
    torch.float64: (1e-12, 1e-11),
    torch.float32: (1e-5, 1e-4),
    torch.bfloat16: (1e-2, 2e-2),
    torch.float16: (2e-3, 5e-3),
}

LAYOUTS = (
    "contiguous",
    "unaligned",
    "channels first",
    "strided channels",
    "sliced",
    "transposed",
    "expanded",
)


def lay_out(x, layout):
    """Return `x`, Tensor[B, ..., H, W, C], with other strides; "expanded" repeats one image."""
    if layout == "contiguous":
        return x.contiguous()
    if layout == "expanded":
        return x[:1].expand(x.shape)
    if layout == "unaligned":  # a pointer that no vector register is aligned with
        return x.new_empty(x.numel() + 1)[1:].view(x.shape).copy_(x)
    if layout == "channels first":
        return x.movedim(-1, -3).contiguous().movedim(-3, -1)
    if layout == "transposed":
        return x.transpose(-2, -3).contiguous().transpose(-2, -3)
    if layout == "strided channels":
        return x.new_empty(*x.shape, 2).select(-1, 1).copy_(x)
    *outer, height, width, channels = x.shape
    larger = x.new_full((*outer, height + 3, width + 2, channels + 5), float("nan"))
    return larger[..., 2:-1, 1:-1, 3:-2].copy_(x)


@dataclass(frozen=True)
class Case:
    """One call of the attention."""

    window: tuple[int, int]
    size: tuple[int, int]
    batch: int = 1
    frames: int | None = None  # None: a map of four dimensions
    heads: int = 2
    head_dim: int = 8
    pad: bool = True
    scale: float | None = None
    layout: str = "contiguous"
    grad_layout: str = "contiguous"

    def __str__(self):
        sides = "x".join(
            map(str, [self.batch, *([self.frames] if self.frames else []), *self.size])
        )
        window = f"w{self.window[0]}x{self.window[1]}"
        layouts = f"{self.layout}-{self.grad_layout}".replace(" ", "_")
        extra = ("-pad" if self.pad else "") + ("-scale" if self.scale else "")
        return f"{window}-{sides}-{self.heads}h{self.head_dim}-{layouts}{extra}"

    @property
    def shape(self):
        """The shape of qkv."""
        frames = () if self.frames is None else (self.frames,)
        return (self.batch, *frames, *self.size, 3 * self.heads * self.head_dim)

    @property
    def products(self):
        """About how many a kernel works out that takes tiles of 64 tokens."""
        groups = (-(-side // of_window) for side, of_window in zip(self.size, self.window))
        tokens = math.prod(self.window) * (self.frames or 1)
        windows = self.batch * math.prod(groups)
        return windows * self.heads * (-(-tokens // 64) * 64) ** 2 * self.head_dim

    def inputs(self, dtype):
        """Return qkv, pad_qkv (or None) and a gradient of the output, on the CPU."""
        generator = torch.Generator().manual_seed(hash(self.shape) % 2**31)

        def random_tensor(*shape):
            return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

        qkv = lay_out(random_tensor(*self.shape), self.layout)
        pad = random_tensor(self.shape[-1]) if self.pad else None
        grad = random_tensor(*self.shape[:-1], self.shape[-1] // 3)
        return qkv, pad, lay_out(grad, self.grad_layout)


WINDOWS = [(side, side) for side in range(1, 17)] + [(1, 7), (7, 2), (3, 5), (16, 4)]


def sizes_of(window):
    """Smaller than a window, one window, whole windows, odd, and prime."""
    rows, columns = window
    return [
        (max(1, rows - 2), max(1, columns // 2)),
        (rows, columns),
        (2 * rows, 3 * columns),
        (2 * rows + 1, columns + 2 - columns % 2),
        (13, 19),
    ]


def _cases_on_images():
    """Each window on each size; of everything else, each value with about every other one."""
    choose = random.Random(0)

    def values(*options):
        while True:
            yield from choose.sample(options, len(options))

    batches, heads = values(1, 1, 2, 3), values(1, 2, 3, 4, 5, 6, 8, 12, 16, 24, 32)
    head_dims, scales = values(*range(8, 129, 8)), values(None, None, 0.3)
    pads, layouts, grads = values(True, True, False), values(*LAYOUTS), values(*LAYOUTS)
    for window in WINDOWS:
        for size in sizes_of(window):
            head_dim = next(head_dims)
            fitting = (n for n in heads if n * head_dim <= 256)
            yield Case(
                window,
                size,
                batch=next(batches),
                heads=next(fitting),
                head_dim=head_dim,
                pad=next(pads),
                scale=next(scales),
                layout=next(layouts),
                grad_layout=next(grads),
            )


def _cases_on_clips():
    """1 to 16 frames; windows up to the 784 tokens of the published video models."""
    layouts = itertools.cycle(LAYOUTS)
    for frames in range(1, 17):
        yield Case(
            window=(frames % 4 + 1, frames % 3 + 2),
            size=(5, 4 + frames % 5),
            batch=1 + frames % 2,
            frames=frames,
            heads=1 + frames % 3,
            head_dim=8 * (1 + frames % 4),
            pad=frames % 4 != 0,
            layout=next(layouts),
            grad_layout=next(layouts),
        )
    yield Case((7, 7), (9, 8), frames=16, heads=1, head_dim=32)
    yield Case((7, 7), (7, 7), frames=8, heads=2, head_dim=24, pad=False)
    # Nearly all tokens are padding, and equal: errors of rounding that all have one sign.
    yield Case((7, 7), (1, 1), batch=2, frames=16, heads=2, head_dim=16)
    yield Case((7, 7), (9, 6), batch=2, frames=16, heads=2, head_dim=16)


ON_IMAGES = list(_cases_on_images())
ON_CLIPS = list(_cases_on_clips())
# The published models' own: window 7 at heads of 32, the last stage smaller than a window.
PUBLISHED = [
    Case((7, 7), (14, 21), batch=2, heads=3, head_dim=32),
    Case((7, 7), (15, 20), heads=12, head_dim=32, layout="channels first"),
    Case((7, 7), (4, 6), heads=32, head_dim=32),
    Case((12, 12), (24, 24), heads=4, head_dim=32),
]
EMPTY = [
    Case((7, 7), (9, 8), batch=0),
    Case((3, 2), (6, 4), batch=0, frames=2, pad=False),
]
ALL = PUBLISHED + ON_IMAGES + ON_CLIPS + EMPTY
# Small ones, for what takes long.
FEW = [
    Case((2, 2), (3, 5)),
    Case((3, 2), (2, 4), batch=2, heads=1, pad=False),
    Case((2, 3), (4, 3), frames=2, heads=1, scale=0.5, layout="channels first"),
]


def some(cases, step, offset=0):
    """Every `step`-th of the cases."""
    return cases[offset::step]


def in_layout(case, layout, grad_layout):
    """Return the case with other strides."""
    return replace(case, layout=layout, grad_layout=grad_layout)
