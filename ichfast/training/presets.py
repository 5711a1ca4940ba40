"""The recipes to start from."""

import ichfast.training.strategies  # noqa: F401  a preset names one
from ichfast.training.recipe import Recipe, merge

PRESETS = {
    "demo": merge(
        Recipe(),
        {
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
        },
    ),
    "paper": merge(Recipe(), {"training.checkpoint_every": 10}),
}
