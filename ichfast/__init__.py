"""Fused kernels and trainer for semi-supervised segmentation of haemorrhage in head CT."""

from typing import Any

import torch  # noqa: F401  (first: the native library needs libtorch in the process)

try:
    import ichfast._C as _C  # `from ichfast import` would blame a circular import
except ImportError as error:
    raise ImportError(
        f"ichfast's native library does not load ({error}); build it with "
        "`pip install --no-build-isolation .` in the torch environment you use, torch>=2.11."
    ) from error

__version__ = "0.1.0"


def build_info() -> dict[str, Any]:
    """How the native library was built: version, compiler, torch target, SIMD in use, cuda."""
    return {"version": __version__, **_C.build_info()}
