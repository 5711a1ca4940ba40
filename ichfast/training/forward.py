"""How the steps run a network: precision, memory layout, compiled or not. Nothing else asks."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor

from ichfast.errors import RecipeError
from ichfast.models.compute import has_bfloat16, to_channels_last
from ichfast.models.norm import plain_modules
from ichfast.training.recipe import Recipe

Outputs = TypeVar("Outputs", Tensor, tuple[Tensor, Tensor])


class Forward:
    """``forward(model.segment, image)``: ``model.segment(image)``, run as ``recipe.compute`` says;
    what else the function takes comes after the image.

    Weights and their gradients are float32 and contiguous whatever is chosen, so optimizers and
    checkpoints need not know. What comes out has the dtype that it was computed in, which the
    losses read as it is: a copy in float32 would be written, and read again, for nothing.
    """

    def __init__(self, recipe: Recipe, device: torch.device) -> None:
        self.settings, self.device = recipe.compute, device
        if self.settings.compile == "cuda_graphs" and device.type != "cuda":
            raise RecipeError(
                f"compute.compile = cuda_graphs needs a GPU, and the device is {device}; set "
                "compute.compile = on."
            )
        self.precision = choose_precision(recipe, device)
        self.compiled: dict[Callable[..., Any], Callable[..., Any]] = {}

    def __call__(self, function: Callable[..., Outputs], image: Tensor, *others: Tensor) -> Outputs:
        if self.settings.memory_format == "channels_last":
            image = to_channels_last(image)
        plain = self.settings.normalisation == "plain"
        with (
            plain_modules() if plain else nullcontext(),
            torch.autocast(
                self.device.type, torch.bfloat16, enabled=self.precision == torch.bfloat16
            ),
        ):
            outputs = self._compile(function)(image, *others)
        if isinstance(outputs, Tensor):
            return self._finish(outputs)
        first, second = outputs
        return self._finish(first), self._finish(second)

    def _compile(self, function: Callable[..., Outputs]) -> Callable[..., Outputs]:
        if self.settings.compile == "off":
            return function
        if function not in self.compiled:
            mode = "reduce-overhead" if self.settings.compile == "cuda_graphs" else None
            # Batches have two sizes at most, one apart.
            self.compiled[function] = torch.compile(function, dynamic=False, mode=mode)
        return self.compiled[function]

    def _finish(self, output: Tensor) -> Tensor:
        # A graph without a backward pass may be replayed at once, over its former results.
        graph_s = self.settings.compile == "cuda_graphs" and not output.requires_grad
        return output.clone() if graph_s else output


def choose_precision(recipe: Recipe, device: torch.device) -> torch.dtype:
    """What Adam's steps compute in on this device: torch.float32 or torch.bfloat16."""
    if recipe.compute.precision != "auto":
        return torch.bfloat16 if recipe.compute.precision == "bfloat16" else torch.float32
    return torch.bfloat16 if has_bfloat16(device) else torch.float32
