"""How much of the encoder's gradient of L_u comes from the foreground, in either balance.

    python -m benchmarks.attention_share --labelled CT-ICH --unlabelled PHE-SICH
    python -m benchmarks.attention_share --run RUN

The first trains the curriculum twice on real CT, once in each balance, and measures both balances
as it goes; some minutes on one core. The second measures the weights of a run that has been
trained, on its own unlabelled slices, and writes nothing.

With the mask as a constant L_u is a sum of two terms, each of one reconstruction. So its gradient
with the other one detached is that of a term, by the op that training uses. In the same way the
gradient that comes through some of the pixels is that of the others set to zero on its way back.
"""

import argparse
import copy
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from benchmarks.machine import describe_commit, describe_machine
from ichfast import models
from ichfast.data import SliceSet
from ichfast.errors import IchfastError
from ichfast.losses import AttentionWMSELoss
from ichfast.models import ReducedUNet
from ichfast.training import Recipe, recipe
from ichfast.training.folder import RECIPE, WEIGHTS
from ichfast.training.loop import validate
from ichfast.training.parts import Parts, load_parts
from ichfast.training.pipeline import make_model
from ichfast.training.steps import build_steps
from ichfast.training.strategy import make_strategy

PAGE = Path(__file__).parent / "results" / "attention-share.md"
CPU = torch.device("cpu")
Balance = Literal["paper", "region"]
BALANCES: tuple[Balance, ...] = ("paper", "region")
BATCHES, BATCH_SIZE = 12, 16  # that a measurement is the mean of
OVERRIDES = {
    "training.strategy": "curriculum",
    "model.channels": [16, 32, 64, 128],
    "supervised.optimizer": "adam",
    "supervised.cross_entropy": 1.0,
    "adam.learning_rate": 2e-3,
    "curriculum.k": 4.0,
    "data.size": 96,
    "data.scheme": 80,
    "data.unlabelled_slices": "all",
}


@dataclass(frozen=True)
class Shares:
    """Of the encoder's gradient, in means over batches.

    Attributes:
        term: of the foreground's error; the rest is the background's.
        blood: through the pixels of the mask (m > ½), in both errors; the rest is the others'.
        area: Σm/N, the weight of the foreground's error in the paper's balance.
    """

    term: float
    blood: float
    area: float


def measure(model: ReducedUNet, batches: Sequence[Tensor], balance: Balance) -> Shares:
    """The shares at the model's weights, which stay as they are. A share is |g| / (|g| + |h|) for
    the gradients g of the one part and h of the other."""
    model = copy.deepcopy(model).train()  # statistics of the batch, as in the step
    loss = AttentionWMSELoss(balance=balance)
    rows = []
    for image in batches:
        logits, reconstruction = model(image)
        blood = (logits.detach() > 0).expand_as(reconstruction)
        value = loss(image, logits, reconstruction)
        (back,) = torch.autograd.grad(value, reconstruction, retain_graph=True)

        def norm(part: Tensor, through: Tensor = reconstruction) -> float:
            return measure_norm(model, through, part)

        of_term = torch.zeros_like(back)
        of_term[:, 1] = back[:, 1]
        term = divide(norm(of_term), norm(back - of_term))
        of_blood = back * blood
        through_blood = divide(norm(of_blood), norm(back - of_blood))
        rows.append((term, through_blood, torch.sigmoid(logits).mean().item()))
    return Shares(*(sum(column) / len(rows) for column in zip(*rows, strict=True)))


def measure_norm(model: ReducedUNet, output: Tensor, gradient: Tensor) -> float:
    """Of the encoder's gradient for this gradient of the output."""
    parameters = model.groups()["encoder"]
    gradients = torch.autograd.grad(output, parameters, gradient, retain_graph=True)
    return float(torch.cat([g.flatten() for g in gradients]).norm())


def divide(part: float, rest: float) -> float:
    return part / (part + rest) if part else 0.0


def draw_batches(slices: SliceSet) -> list[Tensor]:
    """The same ones for every measurement of a set."""
    order = torch.randperm(len(slices), generator=torch.Generator().manual_seed(0))
    return [slices.batch(rows)[0] for rows in order[: BATCHES * BATCH_SIZE].split(BATCH_SIZE)]


def follow(parts: Parts, chosen: Recipe, epochs: Sequence[int]) -> list[str]:
    """Train by the recipe; lines of the table, measured when so many epochs have passed."""
    assert parts.unlabelled is not None
    model, strategy = make_model(chosen, CPU), make_strategy(chosen)
    steps = build_steps(strategy.steps, model, parts.train, parts.unlabelled, chosen, CPU)
    batches = draw_batches(parts.unlabelled)
    lines = []
    for epoch in range(epochs[-1] + 1):
        if epoch in epochs:
            dice = f"{validate(model, parts, chosen, CPU)['dice']:.2f}"
            start = f"| {chosen.unsupervised.balance} | {epoch} | {dice} |"
            lines.append(f"{start} {describe(model, batches)}")
            print(lines[-1], file=sys.stderr)
        if epoch < epochs[-1]:
            step = strategy.draw(epoch).step
            moved = epoch > 0 and strategy.draw(epoch - 1).step != step
            steps[step].run(epoch, moved=moved)
    return lines


def describe(model: ReducedUNet, batches: Sequence[Tensor]) -> str:
    """The last columns of the table: area, and what either balance makes of these weights."""
    paper, region = (measure(model, batches, balance) for balance in BALANCES)
    shares = (paper.term, region.term, paper.blood, region.blood)
    return f"{paper.area:.2%} | " + " | ".join(f"{share:.2%}" for share in shares) + " |"


HEADER = """\
| trained in | epochs | Dice | area | term, paper | term, region | blood, paper | blood, region |
| --- | --- | --- | --- | --- | --- | --- | --- |"""

TEXT = """\
# L_u: how much of the encoder's gradient comes from the foreground

    python -m benchmarks.attention_share --labelled CT-ICH --unlabelled PHE-SICH

{labelled} labelled slices of CT-ICH v1.0.0 (80 %, fold 0) and {unlabelled} unlabelled ones of
PHE-SICH at {size}×{size}, channels {channels}; the curriculum, both steps by Adam, trained once in
each balance. Measured over {measured} unlabelled slices in batches of {batch_size}, the mask as a
constant (`stop`), in both balances at the same weights, whichever they were trained in. A share is
|g| / (|g| + |h|) for the gradients g and h of two parts, in the mean over the batches:

- *term*: of the foreground's error (r_f), beside the background's (r_b);
- *blood*: through the pixels that the mask takes for blood (m > ½), in both errors, beside all
  others.

*Area* is Σm/N on these slices, *Dice* pooled on the labelled validation slices.

{table}

Commit `{commit}`, {cpu}.
"""


def write_page(labelled: Path, unlabelled: Path, epochs: Sequence[int]) -> None:
    chosen = recipe.apply_folders(recipe.merge(Recipe(), OVERRIDES), labelled, unlabelled)
    parts = load_parts(chosen, Path())
    assert parts.unlabelled is not None
    lines = [
        line
        for balance in BALANCES
        for line in follow(parts, recipe.merge(chosen, {"unsupervised.balance": balance}), epochs)
    ]
    text = TEXT.format(
        labelled=len(parts.train),
        unlabelled=len(parts.unlabelled),
        size=chosen.data.size,
        channels="-".join(map(str, chosen.model.channels)),
        measured=min(BATCHES * BATCH_SIZE, len(parts.unlabelled)),
        batch_size=BATCH_SIZE,
        table="\n".join([HEADER, *lines]),
        commit=describe_commit()["hash"],
        cpu=describe_machine(torch.get_num_threads())["cpu"],
    )
    PAGE.write_text(text, encoding="utf-8")
    print(f"Written: {PAGE}")


def describe_run(folder: Path) -> str:
    """The table of a run's weights."""
    chosen = recipe.read(folder / RECIPE, Recipe())
    parts = load_parts(chosen, folder.parent)
    if parts.unlabelled is None:
        raise IchfastError(f"{folder}: {chosen.training.strategy} has no unlabelled slices.")
    model = models.load(folder / WEIGHTS)
    dice = f"{validate(model, parts, chosen, CPU)['dice']:.2f}"
    start = f"| {chosen.unsupervised.balance} | best | {dice} |"
    return f"{HEADER}\n{start} {describe(model, draw_batches(parts.unlabelled))}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--labelled", type=Path)
    parser.add_argument("--unlabelled", type=Path)
    parser.add_argument("--run", type=Path, help="a run's folder")
    parser.add_argument("--epochs", type=int, nargs="+", default=[0, 4, 8, 16])
    options = parser.parse_args()
    if (options.run is None) == (options.labelled is None or options.unlabelled is None):
        parser.error("give --run, or --labelled and --unlabelled")
    try:
        if options.run is not None:
            print(describe_run(options.run))
        else:
            write_page(options.labelled, options.unlabelled, sorted(options.epochs))
    except IchfastError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
