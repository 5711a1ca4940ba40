"""``python -m ichfast.evaluate MODEL --labelled DIR``: an external test of a model."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ichfast.command import command


@command("give a part of the set, or a model of fewer channels")
def main(arguments: Sequence[str] | None = None, prog: str = "python -m ichfast.evaluate") -> int:
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Test a model on a labelled set that it was not trained with: every score that "
        "a run's test has, at the network's size and on the scans' own grid, volumes in mL beside "
        "the true ones, examples and the page. Exit status: 0, 1 when some files could not be "
        "read, 2 when nothing was tested.",
    )
    add = parser.add_argument
    add(
        "model",
        nargs="*",
        type=Path,
        metavar="MODEL",
        help="run folder or .safetensors; several are averaged; none: the weights that ship",
    )
    add("--labelled", type=Path, metavar="DIR", required=True, help="CT with masks, or its pool")
    add("--out", type=Path, metavar="DIR", help="new folder (runs/MODEL-on-DIR)")
    add("--device", default="cpu", help="cpu, cuda or cuda:N (%(default)s)")
    options = parser.parse_args(arguments)
    # After --help: these take a while to load.
    from ichfast.inference.external import run_test
    from ichfast.inference.model import load_model
    from ichfast.models.compute import resolve_device
    from ichfast.train import format_scores, write_report

    try:
        model = load_model(options.model or None, resolve_device(options.device))
        name = f"{model.name}-on-{options.labelled.resolve().name}".replace(" ", "")
        out = options.out or Path("runs") / name
        metrics, problems = run_test(model, options.labelled, out)
    except KeyboardInterrupt:
        print("\ninterrupted; nothing was written: start it again", file=sys.stderr)
        return 130
    print(format_scores(metrics["test"]))
    if metrics["native"] is not None:
        dice = metrics["native"]["positive"]["dice"]["pooled"]
        print(f"Dice on the scans' own grid, pooled over slices with blood: {format_number(dice)}")
    write_report(out)
    if problems.items:
        print(problems.summary(), file=sys.stderr)
    return 1 if problems.failed else 0


def format_number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    sys.exit(main())
