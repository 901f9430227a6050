"""The door to detectron2.utils."""
