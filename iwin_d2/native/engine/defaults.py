"""What every training script starts with: command line, set-up, writers."""

import argparse
import os
import sys

import torch
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import fp16_compress_hook
from torch.nn.parallel import DistributedDataParallel

from ...environment import collect_environment
from ..config import LazyConfig
from ..utils import comm
from ..utils.env import seed_all_rng
from ..utils.events import CommonMetricPrinter, EventWriter, JSONWriter, TensorboardXWriter
from ..utils.file_io import PathManager
from ..utils.logger import setup_logger


def default_argument_parser(epilog: str | None = None) -> argparse.ArgumentParser:
    """The parser of the command line that users of Detectron2 know."""
    parser = argparse.ArgumentParser(
        epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    # A port of each user's own, so that runs on a shared machine do not meet.
    user = os.getuid() if sys.platform != "win32" else 1
    url = f"tcp://127.0.0.1:{2**15 + 2**14 + hash(user) % 2**14}"
    add = parser.add_argument
    add("--config-file", default="", metavar="FILE", help="path to config file")
    add("--resume", action="store_true", help="go on from the output folder's last checkpoint")
    add("--eval-only", action="store_true", help="evaluate, do not train")
    add("--num-gpus", type=int, default=1, help="processes on each machine, one for each GPU")
    add("--num-machines", type=int, default=1, help="total number of machines")
    add("--machine-rank", type=int, default=0, help="the number of this machine, from 0")
    add("--dist-url", default=url, help="where the processes meet, or 'auto' on one machine")
    text = "config overrides at the end of the command: key.path=value ..."
    add("opts", nargs=argparse.REMAINDER, help=text)
    return parser


def default_setup(cfg, args) -> None:
    """Set up output folder, logs, seed; log environment, arguments and config.

    Of the lazy config it reads `train.output_dir` and, where there are any, `train.seed` (negative:
    a random one) and `train.cudnn_benchmark`.
    """
    output_dir, rank = cfg.train.output_dir, comm.get_rank()
    if comm.is_main_process() and output_dir:
        PathManager.mkdirs(output_dir)
    setup_logger(output_dir or None, distributed_rank=rank, name="fvcore")
    logger = setup_logger(output_dir or None, distributed_rank=rank)
    logger.info("Rank of this process: %d, processes: %d", rank, comm.get_world_size())
    logger.info("Environment:\n%s", collect_environment())
    logger.info("Command line arguments: %s", args)
    if getattr(args, "config_file", ""):
        with PathManager.open(args.config_file, "r") as file:
            logger.info("Contents of %s:\n%s", args.config_file, file.read())
    if comm.is_main_process() and output_dir:
        path = os.path.join(output_dir, "config.yaml")
        LazyConfig.save(cfg, path)
        logger.info("Full config saved to %s", path)
    seed = cfg.train.get("seed", -1)
    seed_all_rng(None if seed < 0 else seed + rank)
    # Input sizes vary, so trying out convolution algorithms rarely pays in training.
    if not getattr(args, "eval_only", False):
        torch.backends.cudnn.benchmark = cfg.train.get("cudnn_benchmark", False)


def default_writers(output_dir: str, max_iter: int | None = None) -> list[EventWriter]:
    """Console, metrics.json and TensorBoard files in `output_dir`, which is made if missing."""
    PathManager.mkdirs(output_dir)
    return [
        CommonMetricPrinter(max_iter),
        JSONWriter(os.path.join(output_dir, "metrics.json")),
        TensorboardXWriter(output_dir),
    ]


def create_ddp_model(model, *, fp16_compression: bool = False, **kwargs):
    """Wrap the model in DistributedDataParallel(model, **kwargs) where there are several processes.

    `fp16_compression`: exchange gradients in half precision.
    """
    if comm.get_world_size() == 1:
        return model
    if "device_ids" not in kwargs and next(model.parameters()).is_cuda:
        kwargs["device_ids"] = [comm.get_local_rank()]
    ddp = DistributedDataParallel(model, **kwargs)
    if fp16_compression:
        ddp.register_comm_hook(state=None, hook=fp16_compress_hook)
    return ddp
