"""Loads the native libraries: the CPU's always, the CUDA kernels where they can be."""

from importlib.util import find_spec
from typing import Any

import torch  # first: the native libraries need libtorch in the process


def _load(library: str) -> None:
    """Register the ops of a library that knows no Python; OSError says why it does not load."""
    spec = find_spec(f"ichfast.{library}")
    if spec is None or spec.origin is None:
        raise OSError(f"the library {library} is missing")
    try:
        torch.ops.load_library(spec.origin)
    except OSError as error:  # torch wraps the loader's own words
        raise OSError(str(error.__cause__ or error)) from error


try:
    import ichfast._C_python as _C_python  # `from ichfast import` would blame a circular import

    _load("_C_cpu")
except (ImportError, OSError) as error:
    raise ImportError(
        f"ichfast's native libraries do not load ({error}); build them with "
        "`pip install --no-build-isolation .` in the torch environment you use, torch>=2.11."
    ) from error

INFO: dict[str, Any] = _C_python.build_info()


def _load_cuda() -> str | None:
    """None, or why there are no CUDA kernels. Never an error: the CPU's stand without them."""
    build = "`ICHFAST_CUDA=1 pip install --no-build-isolation .` (needs nvcc and a CUDA torch)"
    if INFO["cuda_toolkit"] is None:  # a file left by another build is not this one's
        return f"this build of ichfast has CPU kernels only; build with {build}"
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA; install a CUDA build of torch"
    try:
        _load("_C_cuda")
    except OSError as error:
        return f"ichfast's CUDA kernels do not load ({error}); build with {build}"
    return None


NO_CUDA = _load_cuda()
