"""The recipes to start from."""

from typing import Any

import ichfast.training.strategies  # noqa: F401  a preset names one
from ichfast.training.recipe import Recipe, merge

STRONG_BASELINE: dict[str, Any] = {
    "training.strategy": "supervised",
    "training.epochs": 25,
    "training.select": "ema",
    "training.statistics": "running",
    "model.channels": [16, 32, 64, 128],
    "supervised.optimizer": "adam",
    "supervised.alpha": 0.5,
    "supervised.beta": 0.5,
    "supervised.cross_entropy": 1.0,
    "supervised.batch_size": 8,
    "supervised.draws": 800,
    "supervised.positive": 0.5,
    "unsupervised.batch_size": 8,
    "adam.learning_rate": 2e-3,
    "adam.decay": "cosine",
    "augmentation.flip": 0.5,
    "augmentation.rotation": 15.0,
    "augmentation.scale": 1.2,
    "augmentation.shift": 0.05,
    "augmentation.level": 10.0,
    "augmentation.width": 1.2,
    "augmentation.gamma": 1.3,
    "augmentation.blur": 1.0,
    "augmentation.noise": 5.0,
    "augmentation.paste": 0.5,
    "augmentation.paste_shift": 0.1,
    "data.size": 96,
    "data.slices": "all",
    "data.unlabelled_slices": "all",
    "data.test_slices": "all",
}
"""Supervised training worth beating: overlap and cross-entropy by Adam, strong augmentation with
pasted lesions, healthy slices too, half of those drawn with haemorrhage. Chosen by the pilots of
docs/explanation/study.md; here alone, for all that start from it."""

BESIDE_IT: dict[str, Any] = {
    "curriculum.k": 5.0,  # half of all epochs supervised, as in the paper
    "pretraining.epochs": 5,
    "together.ramp": 0.2,
    "strong.level": 15.0,
    "strong.width": 1.4,
    "strong.gamma": 1.5,
    "strong.blur": 1.5,
    "strong.cutmix": 0.5,
}
"""Of strategies that see unlabelled slices, in a run as long as the baseline's."""

SEMI_SUPERVISED = "curriculum"
"""the strategy of ``own`` where there are unlabelled scans"""

SMALL: dict[str, Any] = {
    "training.epochs": 20,
    "model.channels": [8, 16, 32, 64],
    "supervised.batch_size": 8,
    "unsupervised.batch_size": 8,
    "curriculum.k": 10.0,
    "lbfgs.max_iter": 10,
    "adam.learning_rate": 1e-3,
    "data.size": 128,
    "data.train": 0.25,
    "data.validation": 0.15,
    "data.test": 0.6,
    "phantom.patients": 100,
    "phantom.unlabelled": 40,
    "phantom.slices": 6,
    "phantom.size": 256,
}
"""A phantom, a model and a run that two cores are done with in minutes."""

PRESETS = {
    "demo": merge(
        Recipe(),
        SMALL
        | {
            "training.epochs": 80,
            "training.validate_every": 5,
            "supervised.optimizer": "adam",
            "supervised.alpha": 0.5,
            "supervised.beta": 0.5,
            "supervised.cross_entropy": 1.0,
            "adam.learning_rate": 4e-3,
            "adam.decay": "cosine",
            "curriculum.k": 17.0,  # more than half of all epochs supervised
            "data.test_slices": "all",
        },
    ),
    "own": merge(
        Recipe(),
        STRONG_BASELINE
        | BESIDE_IT
        | {
            "training.validate_every": 5,
            "unsupervised.balance": "region",
            "data.train": 0.7,
            "data.validation": 0.1,
            "data.test": 0.2,
        },
    ),
    "paper": merge(Recipe(), {"training.checkpoint_every": 10}),
}
