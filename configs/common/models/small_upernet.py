"""From the published UPerNet to a small one, of two to three million parameters."""


def make_small(model):
    """Shrink a UPerNet's config to what learns from scratch on a CPU, at about 300 px."""
    model.backbone.update(
        embed_dim=32, depths=[1, 1, 2, 1], num_heads=[1, 2, 4, 8], drop_path_rate=0.0
    )
    model.sem_seg_head.channels = 64
    model.sem_seg_head.auxiliary.channels = 64
