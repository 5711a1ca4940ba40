"""Slices to look at: evenly spaced over the range from the worst to the best, never hand-picked."""

import torch
from torch import Tensor

from ichfast.data import SliceSet
from ichfast.errors import DataError
from ichfast.evaluation.evaluate import Evaluation, Segmenter, switch_to_inference
from ichfast.ops.attention_mask import attention_mask


def pick_examples(
    model: Segmenter,
    slices: SliceSet,
    evaluation: Evaluation,
    n: int = 8,
    *,
    device: torch.device | str = "cpu",
) -> dict[str, Tensor]:
    """Up to ``n`` slices with blood at evenly spaced ranks of Dice, from worst to best.

    Returns CPU tensors, n long: ``image``, ``target`` (uint8), ``mask`` (probability), ``dice``,
    ``rank`` (0 = worst), ``attention`` (x(1−m) and xm) and, where ``model(image)`` gives one,
    ``reconstruction``. Only if no slice has blood are the others shown.
    """
    if slices.masks is None:
        raise DataError("examples need slices with masks")
    candidates = slices.positive.nonzero()[:, 0]
    if len(candidates) == 0:
        candidates = torch.arange(len(slices))
    index, rank = rank_evenly(candidates, evaluation.dice, n)

    image, target = slices.to(device).batch(index)
    assert target is not None
    with switch_to_inference(model):
        output = model(image)
        logits, reconstruction = output if isinstance(output, tuple) else (output, None)
        attention = attention_mask(image, logits)
    pictures = {
        "image": image,
        "target": target,
        "mask": logits.sigmoid(),
        "dice": evaluation.dice[index],
        "rank": rank,
        "attention": attention,
    }
    if reconstruction is not None:
        pictures["reconstruction"] = reconstruction.sigmoid()
    return {name: tensor.cpu().contiguous() for name, tensor in pictures.items()}


def rank_evenly(candidates: Tensor, dice: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Up to ``n`` of the candidates, evenly spaced over the ranks of their Dice, and these ranks (0
    = worst). ``candidates`` (K,) are places in ``dice`` (N,)."""
    order = candidates[dice[candidates].argsort(stable=True)]
    rank = torch.linspace(0, len(order) - 1, min(n, len(order)), dtype=torch.float64).round().long()
    return order[rank], rank
