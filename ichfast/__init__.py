"""Fused kernels and trainer for semi-supervised segmentation of haemorrhage in head CT."""

from typing import Any

from ichfast import _native

__version__ = "0.1.0"


def build_info() -> dict[str, Any]:
    """How the native libraries were built, and what of them is in use.

    Returns:
        version, compiler, torch_target: of ichfast, of the CPU kernels, the oldest torch.
        simd: the instructions that the CPU kernels use here.
        cuda: whether the CUDA kernels are loaded.
        cuda_toolkit, cuda_architectures: what the CUDA kernels were built with and for, as
            "13.0" and "8.0 9.0+PTX"; None where they were not built.
    """
    return {"version": __version__, **_native.INFO, "cuda": _native.NO_CUDA is None}
