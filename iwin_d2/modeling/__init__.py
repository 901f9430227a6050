"""Models built from interleaved windows."""

from .classifier import IwinClassifier
from .iwin import IwinTransformer, iwin_base, iwin_large, iwin_small, iwin_tiny
from .iwin3d import IwinTransformer3D, VideoClassifier, inflate_2d_to_3d
from .published import iwin_classifier, iwin_video_classifier
from .semantic_segmentation import FCNHead, SegmentationLoss, SemanticFPNHead, UPerNetHead
from .yacs import add_iwin_config  # the import registers the builders, too

__all__ = [
    "FCNHead",
    "IwinClassifier",
    "IwinTransformer",
    "IwinTransformer3D",
    "SegmentationLoss",
    "SemanticFPNHead",
    "UPerNetHead",
    "VideoClassifier",
    "add_iwin_config",
    "inflate_2d_to_3d",
    "iwin_base",
    "iwin_classifier",
    "iwin_large",
    "iwin_small",
    "iwin_tiny",
    "iwin_video_classifier",
]
