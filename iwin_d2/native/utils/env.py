"""Random seeds and a description of the environment."""

import logging
import os
import platform
import random
import sys
from datetime import datetime
from importlib import metadata

import numpy as np
import torch

__all__ = ["collect_env_info", "seed_all_rng"]


def seed_all_rng(seed: int | None = None) -> None:
    """Seed the generators of Python, NumPy and torch; None takes a seed from time and process."""
    if seed is None:
        seed = (
            os.getpid()
            + int(datetime.now().strftime("%S%f"))
            + int.from_bytes(os.urandom(2), "big")
        )
        logging.getLogger(__name__).info("Using a generated random seed %d", seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    random.seed(seed)
    os.environ["PYTHONHASHSEED"] = str(seed)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def collect_env_info() -> str:
    """A table of versions and devices."""
    from tabulate import tabulate

    rows = [
        ("platform", platform.platform()),
        ("Python", sys.version.replace("\n", "")),
        ("PyTorch", f"{torch.__version__} (CUDA {torch.version.cuda})"),
    ]
    packages = ["torchvision", "numpy", "fvcore", "iopath", "omegaconf", "pycocotools", "pillow"]
    rows += [(package, _version(package)) for package in packages]
    rows.append(("CPU threads", str(torch.get_num_threads())))
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            capability = ".".join(map(str, torch.cuda.get_device_capability(index)))
            rows.append(
                (f"GPU {index}", f"{torch.cuda.get_device_name(index)} (arch {capability})")
            )
    else:
        rows.append(("GPU", "none available"))
    return tabulate(rows)
