"""Loads the native libraries: the CPU's always, the CUDA kernels where they can be."""

from importlib.util import find_spec
from typing import Any

import torch  # first: the native libraries need libtorch in the process

try:
    import ichfast._C as _C  # `from ichfast import` would blame a circular import
except ImportError as error:
    raise ImportError(
        f"ichfast's native library does not load ({error}); build it with "
        "`pip install --no-build-isolation .` in the torch environment you use, torch>=2.11."
    ) from error

INFO: dict[str, Any] = _C.build_info()


def _load_cuda() -> str | None:
    """None, or why there are no CUDA kernels. Never an error: the CPU's stand without them."""
    build = "`ICHFAST_CUDA=1 pip install --no-build-isolation .` (needs nvcc and a CUDA torch)"
    if INFO["cuda_toolkit"] is None:  # a file left by another build is not this one's
        return f"this build of ichfast has CPU kernels only; build with {build}"
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA; install a CUDA build of torch"
    spec = find_spec("ichfast._C_cuda")
    if spec is None or spec.origin is None:
        return f"ichfast's library _C_cuda is missing; build with {build}"
    try:
        torch.ops.load_library(spec.origin)
    except OSError as error:  # torch wraps the loader's own words
        return (
            f"ichfast's CUDA kernels do not load ({error.__cause__ or error}); build with {build}"
        )
    return None


NO_CUDA = _load_cuda()
