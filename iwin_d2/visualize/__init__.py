"""Pictures for people: data as the model sees it, predictions beside ground truth, attention."""

from .attention import WindowAttention, find_backbone, window_attention
from .attention_picture import attention_picture, describe_attention
from .data import choose_records, draw_data
from .label_data import draw_label_data
from .label_maps import are_labelled, predict_labels, saved_labels, stuff_classes
from .label_predictions import draw_worst_labels, label_sheet
from .model import attention_of_file
from .output import save_picture
from .predictions import draw_worst
from .results import check_images, load_results, predict_records
from .sheet import contact_sheet

__all__ = [
    "WindowAttention",
    "are_labelled",
    "attention_of_file",
    "attention_picture",
    "check_images",
    "choose_records",
    "contact_sheet",
    "describe_attention",
    "draw_data",
    "draw_label_data",
    "draw_worst",
    "draw_worst_labels",
    "find_backbone",
    "label_sheet",
    "load_results",
    "predict_labels",
    "predict_records",
    "save_picture",
    "saved_labels",
    "stuff_classes",
    "window_attention",
]
