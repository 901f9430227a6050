"""Run the parity cases on native and on Detectron2, and measure how far they are apart.

python tests/parity/compare.py prints a table of the largest differences.
"""

import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from shared import ROOT, write_dataset

from iwin_d2.d2.framework import detectron2_is_installed

DUMP = Path(__file__).parent / "dump.py"
FRAMEWORKS = ("native", "detectron2")
REASON = "Detectron2 is not installed here (docs/detectron2.md says how to)"

_MODEL = {
    "input": 0,
    "feature maps": 1e-5,
    "anchors": 0,
    "training proposals": 1e-5,
    "test proposals": 1e-5,
    "losses": 1e-5,
    "metrics": 1e-5,
    "gradients": 1e-4,
    "running statistics": 1e-5,
    "detections before pasting": 1e-5,
    # Their masks and the next ones: one pixel in 10,000 may lie on the other side of the threshold.
    "detections": 1e-4,
    "pasted masks": 1e-4,
    "pasted probabilities": 1e-2,  # steps of 1/255
}
_SEGMENTER = {
    "names": 0,
    "initial weights": 0,
    "next random numbers": 0,
    "losses": 1e-5,
    "gradients": 1e-4,
    "running statistics": 1e-5,
    "scores": 1e-5,
}
# The largest difference allowed, in the sense of `differences`; 0 for equal.
TOLERANCES = {
    "quickstart cascade": _MODEL,
    "Mask R-CNN": _MODEL,
    "published T": {"names and shapes": 0, "feature maps": 1e-5, "detections": 1e-4},
    "UPerNet": _SEGMENTER,
    "Semantic FPN": _SEGMENTER,
    "Detectron2's Semantic FPN": _SEGMENTER,
    "initial weights": {"names": 0, "weights": 0, "next random numbers": 0},
    "solver": {
        "step schedule": 1e-12,
        "cosine schedule": 1e-12,
        "parameter groups": 0,
        "Detectron2's default groups": 0,
    },
    # Detectron2 sums up in C++, pycocotools in NumPy.
    "evaluation": dict.fromkeys(("boxes and masks", "boxes", "one image", "another limit"), 1e-9),
    "data": {
        "augmented": 1e-6,
        "test loader": 0,
        "training loader": 0,
        "samplers": 0,
        "images of many kinds": 0,
        "records": 0,
    },
    "configs": {"every config": 0},
    "training": {
        # Of predicted masks, one pixel in 1000.
        "from a seed": 1e-3,
        "resumed from detectron2": 1e-3,
        "resumed from native": 1e-3,
    },
}


def run_both(work):
    """Run all cases, both frameworks at once; return what native and Detectron2 found.

    Raises:
        RuntimeError: one of them failed; with the end of its output.
    """
    dataset = work / "dataset"
    dataset.mkdir()
    write_dataset(dataset)
    folders = {name: work / name for name in FRAMEWORKS}
    for folder in folders.values():
        folder.mkdir()
    own, other = folders.values()
    processes = {
        "native": _start("native", dataset, own, other),
        "detectron2": _start("detectron2", dataset, other, own),
    }
    try:
        _wait(processes, folders)
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
    return [torch.load(folder / "found.pt") for folder in folders.values()]


def _start(framework, dataset, own, other):
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    variables = {"IWIN_D2_FRAMEWORK": framework, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    with open(own / "output.txt", "w") as output:
        return subprocess.Popen(
            [sys.executable, str(DUMP), str(dataset), str(own), str(other)],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **variables},
        )


def _wait(processes, folders):
    """Wait for all processes, or for the first that fails."""
    waiting = dict(processes)
    while waiting:
        for name, process in list(waiting.items()):
            try:
                status = process.wait(timeout=0.1)
            except subprocess.TimeoutExpired:
                continue
            del waiting[name]
            if status != 0:
                lines = (folders[name] / "output.txt").read_text().splitlines()
                end = "\n".join(lines[-30:])
                raise RuntimeError(f"{name} ended with status {status}:\n{end}")


def differences(native, detectron2, path=""):
    """Go through two results of the same form; yield (path, difference) for every value.

    Of numbers and of tensors of numbers: the largest difference, divided by the largest value of
    Detectron2's; NaN equals NaN. Of masks: the share of pixels that differ. Of all else: 0 where
    they are equal, infinite where they are not, or where type, shape or keys differ.
    """
    if isinstance(native, dict) and isinstance(detectron2, dict):
        if native.keys() != detectron2.keys():
            yield path, math.inf
        for key in native.keys() & detectron2.keys():
            yield from differences(native[key], detectron2[key], f"{path}/{key}")
    elif isinstance(native, list) and isinstance(detectron2, list):
        if len(native) != len(detectron2):
            yield path, math.inf
        for index, pair in enumerate(zip(native, detectron2)):
            yield from differences(*pair, f"{path}/{index}")
    else:
        yield path, _difference(native, detectron2)


def _difference(a, b):
    if isinstance(a, float) and isinstance(b, float):
        a, b = torch.tensor([a, b], dtype=torch.float64)
    if not (isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor)):
        return 0.0 if type(a) is type(b) and a == b else math.inf
    if a.shape != b.shape or a.dtype != b.dtype:
        return math.inf
    if torch.equal(a, b):
        return 0.0
    if bool((a.isnan() != b.isnan()).any()):
        return math.inf
    if a.dtype == torch.bool:
        return float((a != b).double().mean())
    a, b = a.double().nan_to_num(), b.double().nan_to_num()
    return float((a - b).abs().max() / b.abs().max().clamp(min=1e-8))


def main():
    """Print, for each part, the largest difference."""
    with tempfile.TemporaryDirectory() as folder:
        native, detectron2 = run_both(Path(folder))
    print("| what | largest difference |\n| --- | --- |")
    for case, parts in TOLERANCES.items():
        for part in parts:
            found = [d for _, d in differences(native[case][part], detectron2[case][part])]
            print(f"| {case}: {part} | {f'{max(found):.1e}' if max(found) else 'equal'} |")


if __name__ == "__main__":
    sys.exit(main() if detectron2_is_installed() else REASON)
