"""The objects of one image, as columns of equal length."""

import itertools
from typing import Any

import torch
from torch import Tensor

__all__ = ["Instances"]


class Instances:
    """A table: one row an object of the image, one column a field (boxes, classes, masks, ...).

    Fields are set and read as attributes: `instances.gt_boxes = Boxes(...)`. All have one length.
    Names that begin with an underscore are ordinary attributes.

    Args:
        image_size: the image's (height, width).
        **kwargs: fields to begin with.
    """

    def __init__(self, image_size: tuple[int, int], **kwargs: Any):
        self._image_size = image_size
        self._fields: dict[str, Any] = {}
        for name, value in kwargs.items():
            self.set(name, value)

    @property
    def image_size(self) -> tuple[int, int]:
        """The image's (height, width)."""
        return self._image_size

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            super().__setattr__(name, value)
        else:
            self.set(name, value)

    def __getattr__(self, name: str) -> Any:
        # Asked only for what ordinary look-up lacks; "_fields" itself is absent while unpickling.
        fields = self.__dict__.get("_fields", {})
        if name not in fields:
            raise AttributeError(f"Instances have no field {name!r}; fields: {sorted(fields)}")
        return fields[name]

    def set(self, name: str, value: Any) -> None:
        """Set a field; AssertionError if its length differs from that of the others."""
        if len(self._fields) and len(value) != len(self):
            raise AssertionError(
                f"field {name!r} has {len(value)} entries, the other fields have {len(self)}"
            )
        self._fields[name] = value

    def has(self, name: str) -> bool:
        """Tell whether there is a field of that name."""
        return name in self._fields

    def remove(self, name: str) -> None:
        """Drop a field."""
        del self._fields[name]

    def get(self, name: str) -> Any:
        """Return a field."""
        return self._fields[name]

    def get_fields(self) -> dict[str, Any]:
        """Return all fields by name: the dict itself, whose changes are the instances' changes."""
        return self._fields

    def to(self, *args, **kwargs) -> "Instances":
        """Return the instances with `to(...)` called on each field that has it."""
        moved = Instances(self._image_size)
        for name, value in self._fields.items():
            moved.set(name, value.to(*args, **kwargs) if hasattr(value, "to") else value)
        return moved

    def __getitem__(self, item) -> "Instances":
        """Select rows by an int (giving one row), slice, index tensor or bool mask."""
        if isinstance(item, int):
            if not -len(self) <= item < len(self):
                raise IndexError(f"index {item} of {len(self)} instances")
            item %= len(self)
            item = slice(item, item + 1)
        selected = Instances(self._image_size)
        for name, value in self._fields.items():
            if isinstance(value, (list, tuple)) and isinstance(item, Tensor):
                rows = item.nonzero().flatten() if item.dtype == torch.bool else item
                selected.set(name, type(value)(value[row] for row in rows.tolist()))
            else:
                selected.set(name, value[item])
        return selected

    def __len__(self) -> int:
        for value in self._fields.values():
            return len(value)
        raise NotImplementedError("Instances without fields have no length")

    def __iter__(self):
        raise NotImplementedError("Instances cannot be iterated over: iterate over a field")

    @staticmethod
    def cat(instance_lists: list["Instances"]) -> "Instances":
        """Join the instances of one image. The result has the fields of the first of the list."""
        first = instance_lists[0]
        if len(instance_lists) == 1:
            return first
        if any(other.image_size != first.image_size for other in instance_lists):
            raise AssertionError("cannot join instances of images of different sizes")
        joined = Instances(first.image_size)
        for name, value in first.get_fields().items():
            columns = [instances.get(name) for instances in instance_lists]
            if isinstance(value, Tensor):
                joined.set(name, torch.cat(columns, dim=0))
            elif isinstance(value, list):
                joined.set(name, list(itertools.chain(*columns)))
            elif hasattr(type(value), "cat"):
                joined.set(name, type(value).cat(columns))
            else:
                raise ValueError(f"cannot join field {name!r} of type {type(value).__name__}")
        return joined

    def __repr__(self) -> str:
        length = len(self) if self._fields else 0
        height, width = self._image_size
        fields = ", ".join(f"{name}: {value}" for name, value in self._fields.items())
        return (
            f"Instances(num_instances={length}, image_height={height}, image_width={width}, "
            f"fields=[{fields}])"
        )
