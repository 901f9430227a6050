"""Native-PyTorch equivalents of the part of Detectron2 that this project uses.

Only `iwin_d2/d2` imports this package.
"""
