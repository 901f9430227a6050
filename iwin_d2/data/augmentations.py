"""Augmentations beyond those of the framework."""

from collections.abc import Sequence

import numpy as np

from ..d2.data.transforms import Augmentation, AugmentationList, Transform

__all__ = ["RandomChoice"]


class RandomChoice(Augmentation):
    """Apply one of several lists of augmentations, chosen anew for every image.

    Args:
        augmentations: the lists to choose from.
        probabilities: one number a list, adding up to 1; equal chances when None.

    Raises:
        ValueError: there is no list, or the probabilities do not fit.
    """

    def __init__(
        self,
        augmentations: Sequence[Sequence[Augmentation]],
        probabilities: Sequence[float] | None = None,
    ):
        super().__init__()
        self.augmentations = [list(choice) for choice in augmentations]
        self.probabilities = None if probabilities is None else list(probabilities)
        if not self.augmentations:
            raise ValueError("RandomChoice needs at least one list of augmentations")
        if self.probabilities is not None:
            fits = len(self.probabilities) == len(self.augmentations)
            if not fits or min(self.probabilities) < 0 or abs(sum(self.probabilities) - 1) > 1e-6:
                raise ValueError(
                    f"RandomChoice has {len(self.augmentations)} lists and the probabilities "
                    f"{self.probabilities}: give one a list, adding up to 1"
                )

    def __call__(self, aug_input) -> Transform:
        """Apply the chosen list to an AugInput in place; return the transform that was applied."""
        index = np.random.choice(len(self.augmentations), p=self.probabilities)
        return AugmentationList(self.augmentations[index])(aug_input)
