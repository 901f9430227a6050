"""Counterparts of detectron2.utils."""
