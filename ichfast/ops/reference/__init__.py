"""Every op in plain PyTorch: the oracle of tests, the baseline of benchmarks, the path of double
backward. Written for reading, not for speed; same arguments, shapes and dtypes as ``ichfast.ops``.
"""

from ichfast.ops._exports import export_modules

__all__ = export_modules(globals())
