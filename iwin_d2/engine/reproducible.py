"""Random numbers and algorithms that a run can repeat."""

import os
import random

import numpy as np
import torch

__all__ = ["seed_everything", "use_deterministic_algorithms"]


def seed_everything(*entropy: int) -> None:
    """Seed the generators of Python, NumPy and torch (all devices) from non-negative numbers."""
    words = np.random.SeedSequence(entropy).generate_state(4)
    random.seed(int(words[0]))
    np.random.seed(words[1])
    torch.manual_seed(int(words[2]) << 32 | int(words[3]))


def use_deterministic_algorithms(wanted: bool = True) -> None:
    """Make torch take algorithms that give the same bits again, or raise where it has none.

    On CUDA this costs time, and has to be called before CUDA is first used.
    """
    if wanted:
        # What cuBLAS asks for; it is read when CUDA starts.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(wanted)
