"""What results depend on beside their inputs."""

import platform

import numpy as np
import torch

import ichfast


def list_versions() -> dict[str, str]:
    return {
        "ichfast": ichfast.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
