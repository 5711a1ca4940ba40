"""Weights as safetensors; the metadata say which model they belong to."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors

from ichfast.errors import CheckpointError
from ichfast.models.multitask import MultiTaskUNet
from ichfast.models.unet import ReducedUNet

MODELS = {model.kind: model for model in (ReducedUNet, MultiTaskUNet)}


def build(kind: str, channels: Sequence[int], seed: int, convolutions: int = 1) -> ReducedUNet:
    """A new model whose weights depend on the seed alone; torch's generator stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MODELS[kind](channels, convolutions)


def to_bytes(model: ReducedUNet) -> bytes:
    """What :func:`load` reads, for the caller to write."""
    shape = {"channels": model.channels, "convolutions": model.convolutions}
    about = json.dumps({"model": model.kind, **shape})
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    # One entry only: safetensors writes several in no fixed order, and equal weights should give
    # equal files.
    return to_safetensors(tensors, metadata={"ichfast": about})


def load(path: Path | str) -> ReducedUNet:
    """The model in a ``model.safetensors`` of ichfast, on the CPU, in evaluation mode."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read as a safetensors file: {error}.") from error
    try:
        about = json.loads(metadata["ichfast"])
        model = MODELS[about["model"]](about["channels"], about["convolutions"])
        model.load_state_dict(tensors)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{path} holds no weights of an ichfast model; give the model.safetensors of a run."
        ) from error
    return model.eval()
