"""The detectors and segmenters of this project by name, as in `detectron2.model_zoo`.

    from iwin_d2 import model_zoo

    model_zoo.list_models()
    model = model_zoo.get("mask_rcnn/mask_rcnn_iwin_t_1x_coco", weights="model_final.pth")
    cfg = model_zoo.get_config("cascade_mask_rcnn/cascade_mask_rcnn_iwin_t_3x_coco.py")
    model = model_zoo.get("semantic_segmentation/upernet_iwin_t_512_160k_ade20k", trained=True)

A name is a config's path: its project and its file, with or without .py.
"""

from .zoo import get, get_checkpoint_url, get_config, get_config_file, list_models

__all__ = ["get", "get_checkpoint_url", "get_config", "get_config_file", "list_models"]
