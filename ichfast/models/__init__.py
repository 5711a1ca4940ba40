"""The networks, and their weights on disk."""

from ichfast.models.multitask import MultiTaskUNet
from ichfast.models.unet import ReducedUNet
from ichfast.models.weights import build, load, to_bytes

__all__ = ["MultiTaskUNet", "ReducedUNet", "build", "load", "to_bytes"]
