"""A detector of two parameters on a data set of numbers: the tool's whole path in milliseconds."""

import itertools
import os
from pathlib import Path

import torch
from torch import nn

from iwin_d2.d2.evaluation import DatasetEvaluator
from iwin_d2.d2.utils import comm
from iwin_d2.errors import DataError


class ToyDetector(nn.Module):
    """Learns y = 3x + 1; one LayerNorm in the backbone for the weight-decay groups."""

    def __init__(self, bias=True):
        super().__init__()
        self.backbone = nn.ModuleDict({"bottom_up": nn.ModuleDict({"norm": nn.LayerNorm(1)})})
        self.linear = nn.Linear(1, 1, bias=bias)

    def forward(self, batch):
        x = torch.tensor([[item["x"]] for item in batch])
        out = self.linear(x) + self.backbone["bottom_up"]["norm"](x)
        if not self.training:
            return [{"y": value.item()} for value in out]
        y = torch.tensor([[item["y"]] for item in batch])
        return {"loss_toy": (out - y).square().mean()}


class Loader:
    """Batches of numbers, of which each process takes its part.

    Batch number `nan_at` is not finite, number `fail_at` cannot be loaded, at number `bug_at` the
    loader itself fails; with `rank` in that process alone. Each process leaves its process id in
    the folder `pids`.
    """

    def __init__(
        self,
        total_batch_size=4,
        nan_at=None,
        fail_at=None,
        bug_at=None,
        endless=True,
        rank=None,
        pids=None,
    ):
        self.size, self.endless, self.pids = total_batch_size, endless, pids
        self.share = total_batch_size // comm.get_world_size()
        here = rank in (None, comm.get_rank())
        troubles = (nan_at, fail_at, bug_at) if here else (None, None, None)
        self.nan_at, self.fail_at, self.bug_at = troubles

    def __len__(self):
        return 3

    def __iter__(self):
        if self.pids:
            Path(self.pids, str(comm.get_rank())).write_text(str(os.getpid()))
        first = self.share * comm.get_rank()
        number = 0
        while self.endless or number < 3:
            if number == self.fail_at:
                raise DataError("Image images/broken.jpg cannot be read: remove it.")
            if number == self.bug_at:
                number / 0
            xs = [((number * self.size + i) % 7) / 7 for i in range(self.size)]
            ys = [float("nan") if number == self.nan_at else 3 * x + 1 for x in xs]
            batch = [
                {"x": x, "y": y, "file_name": f"images/{number}_{i}.jpg"}
                for i, (x, y) in enumerate(zip(xs, ys))
            ]
            yield batch[first : first + self.share]
            number += 1


class InWorker(torch.utils.data.IterableDataset):
    """A loader's batches, made in a worker process."""

    def __init__(self, loader):
        self.loader = loader

    def __iter__(self):
        yield from self.loader


def worker_loader(**options):
    return torch.utils.data.DataLoader(InWorker(Loader(**options)), num_workers=1, batch_size=None)


class ToyEvaluator(DatasetEvaluator):
    """The mean absolute error; writes it into output_dir. `undefined` adds a metric that is NaN."""

    def __init__(self, output_dir=None, undefined=False):
        self.output_dir = output_dir
        self.undefined = {"undefined": float("nan")} if undefined else {}

    def reset(self):
        self.errors = []

    def process(self, inputs, outputs):
        self.errors += [abs(o["y"] - i["y"]) for i, o in zip(inputs, outputs)]

    def evaluate(self):
        errors = list(itertools.chain(*comm.gather(self.errors)))
        if not comm.is_main_process():
            return None
        error = sum(errors) / len(errors)
        if self.output_dir:
            os.makedirs(self.output_dir, exist_ok=True)
            with open(os.path.join(self.output_dir, "toy.txt"), "w") as file:
                file.write(str(error))
        return {"toy": {"error": error, **self.undefined}}
