"""The `train` section: what the training tool reads beside model, data and optimizer."""

import torch

train = {
    "output_dir": "./output",
    "init_checkpoint": "",  # a file, an address or a published name
    # What may be done where that is not simply the model's own: docs/checkpoints.md.
    "init_options": {
        "part": "all",
        "classes": "same",
        "leave_out": [],
        "num_heads": None,
        "channels": "same",
    },
    "max_iter": 90000,
    "amp": {"enabled": False, "dtype": None},  # float16 or bfloat16; None: float16 on CUDA
    "ddp": {
        "broadcast_buffers": False,
        "find_unused_parameters": False,
        "fp16_compression": False,
    },
    "checkpointer": {"period": 5000, "max_to_keep": 3},
    "eval_period": 5000,
    "log_period": 20,
    "device": "cuda" if torch.cuda.is_available() else "cpu",
    "seed": -1,  # random; any other number is used as it is
    "deterministic": False,  # only algorithms that repeat their results to the bit
    "clip_grad": None,  # maximal norm of all gradients together
    "accumulation_steps": 1,  # batches whose gradients make one step
    "lr_reference_batch_size": None,  # images a step that optimizer.lr is for: scales it to yours
    "ema": {"enabled": False, "decay": 0.9998},  # evaluate and keep a moving average of the weights
    "best_checkpoint": {"metric": None, "mode": "max"},  # e.g. bbox/AP, or validation/total_loss
    "val_loss_period": 0,  # iterations between measurements of the losses on the test set
}
