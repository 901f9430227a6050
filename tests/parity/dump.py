"""Compute every parity case on one framework, chosen by IWIN_D2_FRAMEWORK, and save it.

python dump.py DATASET OWN_FOLDER OTHER_FOLDER

Writes OWN_FOLDER/found.pt: nested dicts and lists of tensors and plain values. The other framework
runs at the same time and writes into OTHER_FOLDER.
"""

import inspect
import sys
import time
from pathlib import Path

import model_cases
import other_cases
import segmentation_cases
import torch
import training_cases

from iwin_d2.d2.data.datasets import register_coco_instances

CASES = {
    **model_cases.CASES,
    **segmentation_cases.CASES,
    **other_cases.CASES,
    **training_cases.CASES,
}


def plain(value):
    """The value with tensors cut off from the graph and copied."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def main(dataset, own, other):
    torch.set_num_threads(1)
    register_coco_instances("parity", {}, str(dataset / "annotations.json"), str(dataset))
    known, found = {"dataset": dataset, "own": own, "other": other}, {}
    for name, case in CASES.items():
        wanted = inspect.signature(case).parameters
        start = time.perf_counter()
        found[name] = plain(case(**{key: known[key] for key in wanted}))
        print(f"{name}: {time.perf_counter() - start:.1f} s", flush=True)
    torch.save(found, own / "found.pt")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
