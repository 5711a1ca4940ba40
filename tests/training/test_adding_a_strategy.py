"""A strategy that no file of the package names is taken by recipe, steps, run, table and docs."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from tiny_runs import log_of, tiny
from torch import Tensor

from ichfast.errors import RecipeError
from ichfast.reproduce.cost import Sizes, estimate_cost
from ichfast.reproduce.plan import make_plan
from ichfast.reproduce.rows import make_row
from ichfast.reproduce.studies import STUDIES
from ichfast.training import PRESETS, reference
from ichfast.training.recipe import apply_settings
from ichfast.training.registry import STRATEGIES
from ichfast.training.steps.together import Pair, TogetherStep
from ichfast.training.strategy import EveryEpoch, make_strategy

ADAM = "supervised.optimizer=adam"
CHOSEN = ("training.strategy=entropy", "together.ramp=0", ADAM)


class EntropyStep(TogetherStep):
    """L is the mean entropy of the unlabelled pixels (Grandvalet and Bengio, NeurIPS 2004)."""

    name = "entropy"
    cost = 2.25

    def backward(self, pair: Pair) -> tuple[Tensor, Tensor]:
        supervised = self.loss(self.forward(self.model.segment, pair.image), pair.mask)
        p = self.forward(self.model.segment, pair.unlabelled).sigmoid().clamp(1e-6, 1 - 1e-6)
        further = self.mean(-(p * p.log() + (1 - p) * (1 - p).log()).mean(), pair)
        (supervised + pair.weight * further).backward()
        return supervised, further


@pytest.fixture(autouse=True)
def entropy() -> Iterator[None]:
    class Entropy(EveryEpoch, name="entropy"):
        label = "Entropy"
        about = "supervised loss, and the entropy of the unlabelled pixels"
        model = "unet"
        unlabelled = "images"
        batchwise = True
        step = EntropyStep

    yield
    del STRATEGIES["entropy"]


def test_the_recipe_knows_it() -> None:
    assert tiny(*CHOSEN).training.strategy == "entropy"
    with pytest.raises(RecipeError, match="entropy goes from batch to batch, which L-BFGS cannot"):
        tiny("training.strategy=entropy")
    with pytest.raises(RecipeError, match="paste_negatives or entropy"):
        tiny("training.strategy=entropi")
    assert "paste_negatives or entropy" in " ".join(reference.format_help().split())
    assert "| `entropy` | supervised loss, and the entropy" in reference.format_strategies()


def test_it_trains_and_resumes(start, tmp_path) -> None:
    metrics = start(tmp_path / "run", *CHOSEN, "training.epochs=2")
    assert metrics["status"] == "finished"
    start(tmp_path / "run", *CHOSEN, "training.epochs=3")
    log = log_of(tmp_path / "run")
    assert [line["step"] for line in log] == ["entropy"] * 3
    assert all(0 < line["parts"]["unsupervised"] < 1 for line in log)


def test_the_table_has_a_row_and_a_cost_of_it() -> None:
    row = make_row("entropy")
    assert (row.label, row.about) == ("Entropy", "not in the paper")
    base = apply_settings(PRESETS["demo"], ["model.channels=[2, 3, 4]", "data.size=16", ADAM])
    study = replace(STUDIES["demo"], rows=(row, make_row("supervised")))
    plan = make_plan(study, base, seeds=1)
    sizes = Sizes(train=20, validation=0, test=0, unlabelled=100)
    one, supervised = (
        estimate_cost(plan.select(name, 50)[0], sizes) for name in ("entropy", "supervised")
    )
    assert make_strategy(plan.select("entropy", 50)[0].recipe).steps == {"entropy": EntropyStep}
    assert one.passes == supervised.passes == base.training.epochs
    assert one.seconds == pytest.approx(2.25 * supervised.seconds)
