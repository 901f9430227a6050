"""Training by our tool, and going on from the other framework's checkpoint."""

import json
import shutil
import time

import pycocotools.mask as mask_util
import torch
from shared import CONFIGS, load_tool

_PATIENCE = 120  # seconds


def _train(output, dataset, *arguments, max_iter):
    """Train the quickstart's model on the CPU, two images at a time; return what it wrote."""
    json_file = dataset / "annotations.json"
    main = load_tool().main
    main(
        [
            "--config-file",
            str(CONFIGS / "quickstart.py"),
            *[text for text in arguments if text.startswith("--")],
            *[f"dataset.{part}_json={json_file}" for part in ("train", "test")],
            *[f"dataset.{part}_images={dataset}" for part in ("train", "test")],
            "dataloader.train.total_batch_size=2",
            "dataloader.train.num_workers=0",
            "dataloader.test.num_workers=0",
            f"train.output_dir={output}",
            f"train.max_iter={max_iter}",
            "train.device=cpu",
            "train.log_period=1",
            "optimizer.lr=0.0003",
            *[text for text in arguments if not text.startswith("--")],
        ]
    )
    rows = [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]
    state = torch.load(output / "model_final.pth", weights_only=True)
    predictions = json.loads((output / "inference/coco_instances_results.json").read_text())
    for record in predictions:
        record["segmentation"] = torch.tensor(mask_util.decode(record["segmentation"])) > 0
    return {
        "losses": [{k: v for k, v in row.items() if "loss" in k or k == "lr"} for row in rows],
        "weights": state["model"],
        "optimizer": state["trainer"]["optimizer"],
        "iteration": state["trainer"]["iteration"],
        "predictions": predictions,
    }


def _wait_for(path):
    deadline = time.monotonic() + _PATIENCE
    while not path.exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{path} did not come")
        time.sleep(0.05)


def training(own, other, dataset):
    """Two iterations from the same seed; then two more, from either framework's checkpoint."""
    start = own / "start"
    found = {"from a seed": _train(start, dataset, max_iter=2)}
    (own / "trained").touch()
    _wait_for(other / "trained")
    for folder in sorted((own, other), key=lambda path: path.name):
        resumed = own / f"resumed from {folder.name}"
        resumed.mkdir()
        for name in ("model_final.pth", "last_checkpoint"):
            shutil.copy(folder / "start" / name, resumed / name)
        found[resumed.name] = _train(resumed, dataset, "--resume", max_iter=4)
    return found


CASES = {"training": training}
