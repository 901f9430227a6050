"""A detector of two parameters on a data set of numbers: the tool's whole path in milliseconds."""

import os

import torch
from torch import nn

from iwin_d2.d2.evaluation import DatasetEvaluator
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
    """Batches of numbers; one may be not finite, or make the loading fail."""

    def __init__(self, total_batch_size=4, nan_at=None, fail_at=None, endless=True):
        self.size, self.nan_at, self.fail_at, self.endless = (
            total_batch_size,
            nan_at,
            fail_at,
            endless,
        )

    def __len__(self):
        return 3

    def __iter__(self):
        number = 0
        while self.endless or number < 3:
            if number == self.fail_at:
                raise DataError("Image images/broken.jpg cannot be read: remove it.")
            xs = [((number * self.size + i) % 7) / 7 for i in range(self.size)]
            ys = [float("nan") if number == self.nan_at else 3 * x + 1 for x in xs]
            yield [
                {"x": x, "y": y, "file_name": f"images/{number}_{i}.jpg"}
                for i, (x, y) in enumerate(zip(xs, ys))
            ]
            number += 1


class WorkerDataset(torch.utils.data.IterableDataset):
    """Fails inside a data-loader worker."""

    def __iter__(self):
        raise DataError("Image images/broken.jpg cannot be read: remove it.")
        yield


def worker_loader():
    return torch.utils.data.DataLoader(WorkerDataset(), num_workers=1, batch_size=None)


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
        error = sum(self.errors) / len(self.errors)
        if self.output_dir:
            os.makedirs(self.output_dir, exist_ok=True)
            with open(os.path.join(self.output_dir, "toy.txt"), "w") as file:
                file.write(str(error))
        return {"toy": {"error": error, **self.undefined}}
