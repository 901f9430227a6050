"""fvcore's checkpointers, for detection models."""

import torch
from fvcore.common.checkpoint import Checkpointer, PeriodicCheckpointer  # noqa: F401

from .utils import comm
from .utils.file_io import PathManager


class DetectionCheckpointer(Checkpointer):
    """Also loads bare state dicts, and saves in the main process only."""

    def __init__(self, model, save_dir="", *, save_to_disk=None, **checkpointables):
        save_to_disk = comm.is_main_process() if save_to_disk is None else save_to_disk
        super().__init__(model, save_dir, save_to_disk=save_to_disk, **checkpointables)
        self.path_manager = PathManager

    def _load_file(self, filename: str) -> dict:
        loaded = torch.load(filename, map_location="cpu", weights_only=True)
        return loaded if "model" in loaded else {"model": loaded}
