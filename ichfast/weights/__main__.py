"""``python -m ichfast.weights make``: train on a whole labelled set, and write the weights."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from ichfast import models
from ichfast.command import command
from ichfast.errors import DivergedError, IchfastError
from ichfast.training import RunFolder, recipe, run
from ichfast.training.folder import RECIPE, WEIGHTS
from ichfast.training.options import parse_options
from ichfast.training.parts import load_parts
from ichfast.weights.card import Data
from ichfast.weights.make import (
    CT_ICH,
    check_data,
    make_card,
    make_recipe,
    read_cross_validation,
)
from ichfast.weights.scan import read_scan_score
from ichfast.weights.shipped import load, save

PROG = "python -m ichfast.weights"

DESCRIPTION = """\
Train the baseline of the study, for longer, on all 82 patients of CT-ICH 1.0.0 and write the
weights that ship, with their card. Nobody is left for a test: what such models are worth,
cross-validation says (--card). Stop it at any time: the same command resumes where it stopped.

``score`` adds to the card of weights that are there (--out) how well scans are told apart by the
volume of their mask, from the folds of a Table 1 (--runs). The weights stay as they are.
"""


@command("set a smaller data.size or supervised.batch_size")
def main(arguments: Sequence[str] | None = None, prog: str = PROG, data: Data = CT_ICH) -> int:
    options = parse_options(make_parser(prog), arguments)
    try:
        if options.what == "score":
            return add_scan_score(options)
        if options.labelled is None:
            raise IchfastError("make needs --labelled DIR, the set to train on.")
        return make(options, data)
    except KeyboardInterrupt:
        print("\ninterrupted; the same command resumes where it stopped", file=sys.stderr)
        return 130


def make_parser(prog: str = PROG) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog, description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("what", choices=("make", "score"), help="weights, or their scan score")
    add("--labelled", type=Path, metavar="DIR", help="the set to train on")
    add("--out", type=Path, metavar="FILE", required=True, help="the weights, NAME.safetensors")
    add("--card", type=Path, metavar="JSON", help="a Table 1 with the cross-validated scores")
    add("--runs", type=Path, metavar="DIR", help="a Table 1's folder of runs, for score")
    add("--run", type=Path, metavar="RUN", help="run folder (runs/weights-NAME)")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="recipe key")
    return parser


def make(options: argparse.Namespace, data: Data) -> int:
    name = options.out.stem
    chosen = recipe.apply_folders(make_recipe(), options.labelled, None)
    chosen = recipe.apply_settings(chosen, options.set)
    scores = read_cross_validation(options.card, chosen) if options.card else None
    folder: Path = options.run or Path("runs") / f"weights-{name}"
    with RunFolder(folder, resume=(folder / RECIPE).exists()) as held:
        parts = load_parts(chosen, folder.parent)
        check_data(parts, options.labelled, data)
        metrics = run(chosen, held, torch.device("cpu"), parts)
        if metrics["status"] == "interrupted":
            raise KeyboardInterrupt
        if metrics["status"] == "diverged":
            raise DivergedError(f"training diverged: {metrics['reason']}")
        card = make_card(name, data, chosen, parts.fingerprints["train"], scores)
        save(models.load(held / WEIGHTS), card, options.out)
    print(f"{options.out}: {options.out.stat().st_size} bytes")
    return 0


def add_scan_score(options: argparse.Namespace) -> int:
    if options.runs is None:
        raise IchfastError("score needs --runs DIR, the folder of a Table 1's runs.")
    model, card = load(options.out)
    if card.cross_validation is None:
        raise IchfastError(f"{options.out} has no cross-validated scores to add to: make it anew.")
    scan = read_scan_score(options.runs, card)
    scored = card.cross_validation.model_copy(update={"scan": scan})
    save(model, card.model_copy(update={"cross_validation": scored}), options.out)
    print(
        f"{options.out}: positive above {scan.threshold:.3g} {scan.unit}; sensitivity "
        f"{scan.sensitivity:.2f} of {scan.positive} scans, specificity {scan.specificity:.2f} of "
        f"{scan.negative}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
