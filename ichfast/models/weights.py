"""Weights as safetensors; the metadata say which model they belong to."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor

from ichfast.errors import CheckpointError
from ichfast.models.multitask import MultiTaskUNet
from ichfast.models.unet import ReducedUNet

MODELS = {model.kind: model for model in (ReducedUNet, MultiTaskUNet)}


def build(kind: str, channels: Sequence[int], seed: int, convolutions: int = 1) -> ReducedUNet:
    """A new model whose weights depend on the seed alone; torch's generator stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MODELS[kind](channels, convolutions)


def to_bytes(
    model: ReducedUNet, about: Mapping[str, Any] | None = None, *, half: bool = False
) -> bytes:
    """What :func:`load` reads, for the caller to write: the weights, as float16 where ``half``, and
    what else there is to say ``about`` them, ready for JSON."""
    shape = {"channels": model.channels, "convolutions": model.convolutions}
    text = json.dumps({"model": model.kind, **shape, **(about or {})})
    tensors = {
        name: (tensor.half() if half and tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in model.state_dict().items()
    }
    # One entry only: safetensors writes several in no fixed order, and equal weights should give
    # equal files.
    return to_safetensors(tensors, metadata={"ichfast": text})


def load(path: Path | str) -> ReducedUNet:
    """The model in a ``model.safetensors`` of ichfast, on the CPU, in evaluation mode."""
    return read(path)[0]


def read(path: Path | str) -> tuple[ReducedUNet, dict[str, Any]]:
    """The same model, and what else its file says about it. CheckpointError where the file holds
    none, or its tensors are not those of the model that it names, or not those of any that works.
    """
    if Path(path).is_dir():
        raise CheckpointError(f"{path} is a folder; give a file in it, such as model.safetensors.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read as a safetensors file: {error}.") from error
    try:
        about = json.loads(metadata["ichfast"])
        if len(about["channels"]) * about["convolutions"] > len(tensors):  # hours of building
            raise ValueError
        kind, channels, convolutions = (
            about.pop(key) for key in ("model", "channels", "convolutions")
        )
        if max(convolutions, len(channels)) > len(tensors):
            raise ValueError("more layers than tensors")  # which would take for ever to build
        with torch.device("meta"):  # no memory before the shapes are known to be right
            model = MODELS[kind](channels, convolutions)
    except Exception as error:  # of whatever the file says that it is
        raise CheckpointError(
            f"{path} holds no weights of an ichfast model; give the model.safetensors of a run."
        ) from error
    check_tensors(model, tensors, path)
    model.to_empty(device="cpu").load_state_dict(tensors)
    return model.eval(), about


def check_tensors(model: ReducedUNet, tensors: Mapping[str, Tensor], path: Path | str) -> None:
    """CheckpointError unless the tensors are the model's by name and shape, and numbers that a
    network can work with."""
    wanted = model.state_dict()
    if odd := sorted(wanted.keys() ^ tensors.keys()):
        has = "lacks" if odd[0] in wanted else "also has"
        raise CheckpointError(
            f"{path} holds no weights of an ichfast model such as it names: it {has} {odd[0]}; "
            "give the file as it was written."
        )
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor) or tensor.dtype.is_complex:
            raise CheckpointError(f"{path}: {name} is no tensor of numbers; give another file.")
        if tensor.shape != wanted[name].shape:
            raise CheckpointError(
                f"{path} holds no weights of an ichfast model such as it names: {name} is "
                f"{tuple(tensor.shape)} and should be {tuple(wanted[name].shape)}; give the file "
                "as it was written."
            )
        if tensor.is_complex() or not tensor.to(wanted[name].dtype).isfinite().all():
            raise CheckpointError(
                f"{path}: the weights in {name} are not finite, so the model gives no numbers; "
                "give those of another run."
            )
        if name.endswith("running_var") and (tensor < 0).any():
            raise CheckpointError(
                f"{path}: {name} has a negative variance, so the model gives no numbers; give the "
                "file as it was written."
            )
