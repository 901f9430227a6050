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
    # After each evaluation, the predictions on so many images of the test set are drawn there.
    "tensorboard": {"enabled": True, "sample_images": 4},
    # Evaluate and predict on several views of each image. The scales are relative to what
    # dataloader.test makes of it: for a short side of 800, these are 400, 500, ..., 1200. They are
    # a detector's; configs/common/semantic_segmentation.py has those of segmenters.
    "test_time_augmentation": {
        "enabled": False,
        "scales": [0.5, 0.625, 0.75, 0.875, 1.0, 1.125, 1.25, 1.375, 1.5],
        "flip": True,
    },
    # Segmenters: evaluate and predict in windows of that height and width, in pixels of what
    # dataloader.test makes of an image, and the mean where they overlap; memory does not depend on
    # the image's size. So many windows are one batch (None: what suits the device).
    "sliding_window": {
        "enabled": False,
        "window": [512, 512],
        "stride": [341, 341],
        "batch_size": None,
    },
}
