"""Build script; the metadata is in pyproject.toml.

The package is pure Python. Compiled operators will be built from csrc/ by this script; the package
works without them.
"""

from setuptools import setup

setup()
