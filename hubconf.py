"""Entry points of torch.hub: the published classifiers by their names, and the backbones.

    model = torch.hub.load(FOLDER, "iwin_tiny_patch4_window7_224", source="local", pretrained=True)
    model = torch.hub.load(FOLDER, "iwin_tiny", source="local", weights="model_final.pth")

FOLDER is a checkout of this repository; without source="local" it is a repository on GitHub.
"""

# torch.hub takes every function here whose name has no underscore before it for an entry point.
from collections.abc import Callable as _Callable

from torch import nn

from iwin_d2 import checkpoint, modeling
from iwin_d2.modeling import published

# What torch.hub looks for before it goes on.
dependencies = ["torch", "torchvision", "fvcore", "iopath", "omegaconf", "pycocotools"]


def _classifier(name: str, build: _Callable[..., nn.Module]) -> _Callable[..., nn.Module]:
    def entry(pretrained: bool = False, **kwargs) -> nn.Module:
        model = build(name, **kwargs)
        if pretrained:
            checkpoint.load_pretrained(model, name, classes="new", channels="adapt")
        return model

    entry.__doc__ = f"""The classifier {name}.

    Args:
        pretrained: whether to load its published weights; with other classes, all but the head.
        **kwargs: of iwin_d2.modeling.{build.__name__}, such as num_classes and drop_path_rate.
    """
    return entry


def _backbone(size: str, build: _Callable[..., nn.Module]) -> _Callable[..., nn.Module]:
    def entry(weights: str | None = None, **kwargs) -> nn.Module:
        model = build(**kwargs)
        if weights is not None:
            checkpoint.load_pretrained(model, weights, channels="adapt")
        return model

    entry.__doc__ = f"""The backbone of size {size}, which gives a dict of feature maps.

    Args:
        weights: a file, an address or a published name to load; None for random ones.
        **kwargs: of iwin_d2.modeling.IwinTransformer, such as out_features.
    """
    return entry


for _size in ("tiny", "small", "base", "large"):
    globals()[f"iwin_{_size}"] = _backbone(_size, getattr(modeling, f"iwin_{_size}"))
for _name in published.IMAGE_CLASSIFIERS:
    globals()[_name] = _classifier(_name, modeling.iwin_classifier)
for _name in published.VIDEO_CLASSIFIERS:
    globals()[_name] = _classifier(_name, modeling.iwin_video_classifier)
