"""A test's slices in numbers."""

import json
from dataclasses import replace

import pytest
import torch
from slice_sets import slice_set

from ichfast.evaluation import evaluate, tabulate
from ichfast.models import ReducedUNet


def test_columns_of_a_selection() -> None:
    images = torch.rand(6, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    masks = torch.zeros(6, 1, 16, 16, dtype=torch.uint8)
    masks[1:, :, 4:9, 4:9] = 1
    whole = slice_set(images, masks, ("Zoe", "Zoe", "Ann", "Bob", "Bob", "Ann"))
    whole = replace(
        whole,
        series=("s2", "s1", "s1", "s7", "s7", "s1"),
        subtypes=(None, (), ("subdural",), None, None, ("epidural", "subdural")),
        spacings=(*whole.spacings[:5], (float("nan"), float("nan"))),
    )
    some = whole.select([5, 3, 1])
    result = evaluate(ReducedUNet((4, 8)), some, batch_size=2, surfaces=True)
    columns = tabulate(some, result, whole)
    assert json.loads(json.dumps(columns, allow_nan=False)) == columns
    assert columns["patient"] == [1, 2, 0]
    assert columns["series"] == [2, 3, 1]  # s1 of Ann is not s1 of Zoe
    assert columns["slice"] == [5, 3, 1]
    assert columns["subtypes"] == [["epidural", "subdural"], None, []]
    assert list(zip(columns["tp"], columns["fp"], columns["fn"], strict=True)) == [
        tuple(counts) for counts in result.counts.tolist()
    ]
    assert columns["hd95"] == [None, *result.surface.hd95[1:].tolist()]
    assert columns["nsd"] == {
        "1 mm": [None, *result.surface.nsd[1:, 0].tolist()],
        "2 mm": [None, *result.surface.nsd[1:, 1].tolist()],
    }
    assert None not in columns["hd95"][1:]
    assert not any(name in json.dumps(columns) for name in ("Ann", "Bob", "Zoe", "s1", "s7"))
    assert columns["area"] == result.areas.tolist()
    bare = replace(some, subtypes=())
    assert tabulate(bare, result, whole)["subtypes"] == [None] * 3
    with pytest.raises(ValueError, match="surfaces=True"):
        tabulate(some, evaluate(ReducedUNet((4, 8)), some, batch_size=2), whole)
