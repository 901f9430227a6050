"""Data and evaluation of classifiers: of images, and what videos have in common with them."""
