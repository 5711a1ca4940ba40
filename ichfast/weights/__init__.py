"""Weights that ship, each with a card that says what it was made of and what it is for."""

from pathlib import Path

from ichfast.errors import CheckpointError
from ichfast.weights.card import Card, CrossValidation, Data, Score
from ichfast.weights.shipped import Pretrained, load, save

__all__ = [
    "Card",
    "CrossValidation",
    "Data",
    "Pretrained",
    "Score",
    "load",
    "load_pretrained",
    "save",
]


def load_pretrained(name: str = "ct-ich") -> Pretrained:
    """The weights of this name that ship with ichfast: ``(model, card)``.

    The model, a :class:`ichfast.models.ReducedUNet` in evaluation mode on the CPU, takes float32
    images (B, 1, H, W) of axial slices in the card's window, scaled to [0, 1], and gives logits of
    the same shape; it was trained at ``card.size``, and ``card.threshold`` is the probability above
    which a pixel is haemorrhage. Raises CheckpointError where there are no such weights.
    """
    folder = Path(__file__).parent
    path = folder / f"{name}.safetensors"
    if not path.is_file():
        known = sorted(file.stem for file in folder.glob("*.safetensors"))
        there = f"there are {', '.join(known)}" if known else "this installation has none"
        raise CheckpointError(f"no weights {name!r} ship with ichfast: {there}.")
    return load(path)
