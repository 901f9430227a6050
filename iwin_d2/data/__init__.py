"""Data sets, their checks, augmentations, and a small generated data set for each task."""
