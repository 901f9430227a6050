#!/usr/bin/env python3
"""Train or evaluate from a yacs config, as Detectron2's tools/train_net.py; evaluates as COCO.

train_net.py --config-file FILE [--num-gpus N] [--eval-only] [--resume] [KEY VALUE ...]
"""

import os

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import get_cfg
from detectron2.engine import DefaultTrainer, default_argument_parser, default_setup, launch
from detectron2.evaluation import COCOEvaluator
from detectron2.solver import get_default_optimizer_params
from detectron2.solver.build import maybe_add_gradient_clipping

from iwin_d2.modeling import add_iwin_config  # registers the backbones, too


class Trainer(DefaultTrainer):
    """Detectron2's trainer with AdamW, without weight decay on norms."""

    @classmethod
    def build_evaluator(cls, cfg, dataset_name, output_folder=None):
        """Return COCO's evaluator; it writes into OUTPUT_DIR/inference."""
        folder = output_folder or os.path.join(cfg.OUTPUT_DIR, "inference")
        return COCOEvaluator(dataset_name, output_dir=folder)

    @classmethod
    def build_optimizer(cls, cfg, model):
        """Return AdamW with the rates of cfg.SOLVER."""
        solver = cfg.SOLVER
        groups = get_default_optimizer_params(
            model, base_lr=solver.BASE_LR, weight_decay=solver.WEIGHT_DECAY, weight_decay_norm=0.0
        )
        return maybe_add_gradient_clipping(cfg, torch.optim.AdamW(groups, lr=solver.BASE_LR))


def setup(args):
    """Read the config and set up logs and seeds."""
    cfg = get_cfg()
    add_iwin_config(cfg)  # the only line that an existing train_net.py lacks, with its import
    cfg.merge_from_file(args.config_file)
    cfg.merge_from_list(args.opts)
    cfg.freeze()
    default_setup(cfg, args)
    return cfg


def main(args):
    """Train, or evaluate; return the results of the evaluation."""
    cfg = setup(args)
    if args.eval_only:
        model = Trainer.build_model(cfg)
        checkpointer = DetectionCheckpointer(model, save_dir=cfg.OUTPUT_DIR)
        checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=args.resume)
        return Trainer.test(cfg, model)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=args.resume)
    return trainer.train()


if __name__ == "__main__":
    args = default_argument_parser().parse_args()
    launch(
        main,
        args.num_gpus,
        num_machines=args.num_machines,
        machine_rank=args.machine_rank,
        dist_url=args.dist_url,
        args=(args,),
    )
