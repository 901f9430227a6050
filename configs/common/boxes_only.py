"""From a detector of boxes and masks to one of boxes alone."""


def leave_out_masks(model, dataloader):
    """Take the mask heads from a two-stage detector's config, and masks from its training data."""
    model.roi_heads.update({key: None for key in model.roi_heads if key.startswith("mask_")})
    dataloader.train.mapper.update(use_instance_mask=False, recompute_boxes=False)
