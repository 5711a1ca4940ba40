"""Fused kernels and trainer for semi-supervised segmentation of haemorrhage in head CT."""

from typing import TYPE_CHECKING, Any

from ichfast import _command, _native  # noqa: F401  # in this order

if TYPE_CHECKING:
    from ichfast.inference.model import load_model

__all__ = ["build_info", "load_model"]

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


def __getattr__(name: str) -> Any:
    """What needs more than torch and the native library is loaded where it is asked for."""
    if name == "load_model":
        from ichfast.inference.model import load_model

        return load_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
