"""Weights and their card in one file."""

import json
from pathlib import Path
from typing import NamedTuple

from ichfast import models
from ichfast.errors import CheckpointError, OutputError
from ichfast.files import write_whole
from ichfast.models import ReducedUNet
from ichfast.models.weights import read
from ichfast.weights.card import Card, parse_card

LARGEST = 3_000_000
"""bytes of a file that ships"""


class Pretrained(NamedTuple):
    model: ReducedUNet
    """in evaluation mode, on the CPU"""
    card: Card


def save(model: ReducedUNet, card: Card, path: Path) -> None:
    """Write ``path``, whole or not at all: float32, or float16 where that is over ``LARGEST``.
    Equal weights and cards give equal bytes."""
    about = {"card": card.model_dump(mode="json")}
    data = models.to_bytes(model, about)
    if len(data) > LARGEST:
        data = models.to_bytes(model, about, half=True)
    if len(data) > LARGEST:
        raise OutputError(
            f"{path} would have {len(data)} bytes as float16, and may have {LARGEST}: train with "
            "fewer model.channels."
        )
    write_whole(path, data)


def load(path: Path | str) -> Pretrained:
    """Weights that :func:`save` has written. Raises CheckpointError where they have no card, or
    the card is not whole, or does not fit the model."""
    model, about = read(path)
    if "card" not in about:
        raise CheckpointError(
            f"{path} holds weights without a card, as a run leaves them; ichfast.models.load reads "
            "those."
        )
    card = parse_card(json.dumps(about["card"]), path)
    multiple = 2 ** (len(model.channels) - 1)
    if card.size % multiple:
        raise CheckpointError(
            f"{path}: the card of these weights is not valid: size: {card.size} is no multiple of "
            f"{multiple}, as the model needs."
        )
    return Pretrained(model, card)
