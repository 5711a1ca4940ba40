"""What one of several processes does in the tests, as :func:`torchrun` starts it:
`team_runs.py TASK FOLDER …`. It writes its results below FOLDER."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "training")]

import torch  # noqa: E402
from tiny_runs import labelled_by_table, synthetic, tiny  # noqa: E402

from ichfast.team import Team, joined  # noqa: E402
from ichfast.training import pipeline, run  # noqa: E402
from ichfast.training.folder import held_by  # noqa: E402
from ichfast.training.parts import Parts  # noqa: E402


def torchrun(
    processes: int, *words: str, command: str = __file__, options: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run ``command`` (this file, or -m with a module) with the words in so many processes."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return subprocess.run(
        [*launcher, f"--nproc-per-node={processes}", *options, *command.split(), *words],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(TESTS.parent)},
        capture_output=True,
        text=True,
        timeout=300,
    )


def tiny_parts() -> Parts:
    return Parts(
        train=synthetic("train", 7),
        validation=synthetic("validation", 4),
        test=synthetic("test", 6),
        unlabelled=labelled_by_table(synthetic("unlabelled", 20, masks=False)),
    )


def runs(folder: Path, team: Team) -> None:
    """Those of cases.json, {folder: [settings, …]}, one after the other; every process's weights at
    the end of each go into the folder as weights-RANK.pt."""
    parts = tiny_parts()
    trained: list[torch.nn.Module] = []
    train = pipeline.train

    def kept(model: Any, *rest: Any) -> bool:
        trained.append(model)
        return train(model, *rest)

    pipeline.train = kept  # type: ignore[assignment]
    for name, settings in json.loads((folder / "cases.json").read_text()):
        own = folder / name
        with held_by(team, own, resume=False) as held:
            run(tiny(*settings), held, torch.device("cpu"), parts, team)
        torch.save(trained[-1].state_dict(), own / f"weights-{team.rank}.pt")


TASKS: dict[str, Callable[[Path, Team], None]] = {"runs": runs}

if __name__ == "__main__":
    torch.set_num_threads(1)
    with joined() as team:
        TASKS[sys.argv[1]](Path(sys.argv[2]), team)
