"""Random seeds."""

import logging
import os
import random
import time

import numpy as np
import torch


def seed_all_rng(seed: int | None = None) -> None:
    """Seed the generators of Python, NumPy and torch; None takes a seed from time and process."""
    if seed is None:
        seed = (os.getpid() + time.time_ns()) % 2**31
        logging.getLogger(__name__).info("Using a generated random seed %d", seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    random.seed(seed)
    os.environ["PYTHONHASHSEED"] = str(seed)
