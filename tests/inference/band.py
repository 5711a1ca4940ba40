"""A model whose answer is known: haemorrhage is what lies between two HU, pixel by pixel."""

from pathlib import Path

import torch

from ichfast import models
from ichfast.evaluation.calibration import Calibration
from ichfast.inference.description import Description

WINDOW = (40.0, 120.0)
BLOOD_HU, BONE_HU = 50.0, 95.0
SHARP = 400.0


def write_band_model(path: Path, size: int = 64, calibration: Calibration | None = None) -> Path:
    """Of one level: its first map is the windowed image, its second what is beyond bone."""

    def share(hu: float) -> float:
        return (hu - WINDOW[0]) / WINDOW[1] + 0.5

    model = models.ReducedUNet((2,))
    with torch.no_grad():
        state = model.state_dict()
        for value in state.values():
            value.zero_()
        level = "encoder.levels.0"
        state[f"{level}.0.weight"][:, 0, 1, 1] = 1.0
        state[f"{level}.1.weight"].fill_(1.0)
        state[f"{level}.1.running_var"].fill_(1.0 - model.encoder.levels[0][1].eps)
        state[f"{level}.1.bias"][1] = -share(BONE_HU)
        state["segmentation.out.weight"][0, :, 0, 0] = torch.tensor([SHARP, -100 * SHARP])
        state["segmentation.out.bias"].fill_(-SHARP * share(BLOOD_HU))
    model.load_state_dict(state)
    about = Description(
        size=size,
        window=WINDOW,
        threshold=0.5,
        ichfast="0.1.0",
        strategy="supervised",
        data={},
        calibration=calibration or Calibration.make_empty("drawn by hand"),
        name="band",
    )
    path.write_bytes(models.to_bytes(model, about.model_dump(mode="json")))
    return path
