"""The ops: differentiable functions over fused native kernels.

Each is exported by the module of its name, and :mod:`ichfast.ops.reference` has it in plain
PyTorch.
"""

from ichfast.ops._exports import export_modules

__all__ = export_modules(globals())
