"""From mapped images and clips to what a classifier takes, and from that to scores."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..errors import DataError

__all__ = ["InputMaker", "Scorer"]


class InputMaker:
    """Stacks a batch of mapped records, on the device, normalised there.

    Attributes:
        device: of what it gives.
        num_classes: of the model.
    """

    def __init__(
        self,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        num_classes: int,
        device: torch.device,
    ):
        """Prepare.

        Args:
            pixel_mean: of each channel, for values from 0 to 255.
            pixel_std: likewise.
            num_classes: of the model.
            device: where to.
        """
        self.device, self.num_classes = device, num_classes
        self._mean = torch.tensor(list(pixel_mean), device=device)
        self._std = torch.tensor(list(pixel_std), device=device)

    def __call__(self, batch: list[dict]) -> tuple[Tensor, Tensor]:
        """Make the input of a batch to train on.

        Args:
            batch: of each an "image", uint8 Tensor[3, H, W], or a "video", uint8 Tensor[views, 3,
                T, H, W], and a "label".

        Returns:
            float Tensor[B, 3, H, W] or Tensor[B * views, 3, T, H, W], and int64 labels of as many.

        Raises:
            DataError: a label is of no class of the model.
        """
        for item in batch:
            if not 0 <= item["label"] < self.num_classes:  # a GPU would say it by a lost context
                raise DataError(
                    f"{item.get('file_name')} has label {item['label']}, but the model has "
                    f"{self.num_classes} classes, from 0 on: correct the training set, or set the "
                    "model's num_classes."
                )
        labels = torch.tensor([item["label"] for item in batch], device=self.device)
        inputs = self.stack(batch)
        if inputs.dim() == 6:
            labels = labels.repeat_interleave(inputs.shape[1])
            inputs = inputs.flatten(0, 1)
        return inputs, labels

    def stack(self, batch: list[dict]) -> Tensor:
        """Stack: float Tensor[B, 3, H, W], or Tensor[B, views, 3, T, H, W] of videos.

        Raises:
            DataError: they are of different sizes.
        """
        key = "video" if "video" in batch[0] else "image"
        items = [item[key] for item in batch]
        shapes = {tuple(item.shape) for item in items}
        if len(shapes) > 1:
            raise DataError(
                f"A batch has {key}s of different shapes ({', '.join(map(str, sorted(shapes)))}): "
                "crop or resize them to one size in the mapper."
            )
        inputs = torch.stack(items).to(self.device, non_blocking=True)
        spatial = (1,) * (3 if key == "video" else 2)
        mean, std = (values.view(-1, *spatial) for values in (self._mean, self._std))
        return (inputs.float() - mean) / std


class Scorer(nn.Module):
    """A classifier for evaluation and prediction: mapped records in, probabilities out."""

    def __init__(self, model: nn.Module, make_inputs: InputMaker):
        """Wrap a classifier; its weights stay its own.

        Args:
            model: gives logits of Tensor[B, 3, H, W], and of Tensor[B, views, 3, T, H, W] the mean
                probabilities.
            make_inputs: stacks and normalises.
        """
        super().__init__()
        self.model, self._make_inputs = model, make_inputs

    def forward(self, batch: list[dict]) -> list[dict[str, Tensor]]:
        """Return for each record its "scores", float32 Tensor[num_classes], which add up to 1."""
        inputs = self._make_inputs.stack(batch)
        scores = self.model(inputs).float()
        if inputs.dim() != 6:
            scores = scores.softmax(-1)
        return [{"scores": row} for row in scores]
