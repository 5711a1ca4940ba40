"""A plug-in for pytest: the ops' CUDA kernels, as PTX on a CPU, in the place of the CPU's.

PTX_LIBRARY=build/ptx-run/libptx.so PYTHONPATH=tests/cpp/ptx pytest -p plug tests/ops
"""

import os
import warnings

import torch

import ichfast  # noqa: F401  # has the schemas, and the kernels that are replaced

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # that kernels are replaced
    torch.ops.load_library(os.environ["PTX_LIBRARY"])
