"""What one of several processes does in the tests, as :func:`torchrun` starts it:
`team_runs.py TASK FOLDER`. It writes its results below FOLDER."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "training")]

import torch  # noqa: E402
from tiny_runs import parts, tiny  # noqa: E402
from torch import nn  # noqa: E402

from ichfast import heartbeat, models, train  # noqa: E402
from ichfast.errors import DataError, IchfastError  # noqa: E402
from ichfast.evaluation import evaluate  # noqa: E402
from ichfast.losses import TverskyBCELoss, TverskyLoss  # noqa: E402
from ichfast.models.synced import SyncedBatchNorm2d  # noqa: E402
from ichfast.team import Team, join_team  # noqa: E402
from ichfast.training import loop, pipeline, run  # noqa: E402
from ichfast.training.folder import hold_folder  # noqa: E402
from ichfast.training.steps import make_supervised_loss  # noqa: E402

CPU = torch.device("cpu")


def torchrun(
    processes: int, *words: str, command: tuple[str, ...] = (__file__,), options: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run ``command`` (this file, or -m and a module) with the words in so many processes."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return subprocess.run(
        [*launcher, f"--nproc-per-node={processes}", *options.split(), *command, *words],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(TESTS.parent)},
        capture_output=True,
        text=True,
        timeout=300,
    )


def runs(folder: Path) -> None:
    """Those of cases.json, [[folder, settings], …], one after the other. Where a folder comes
    again, its run goes on. Every process's weights go into the folder as weights-RANK.pt, its
    error beside it, since a run that is refused leaves none, as FOLDER-error-RANK.txt."""
    with join_team() as team:
        begun = set()
        for name, settings in json.loads((folder / "cases.json").read_text()):
            own = folder / name
            interrupted = team.rank == 1 and name == "interrupted" and name not in begun
            begun.add(name)
            try:
                with (
                    hold_folder(team, own, resume=False) as held,
                    weights_kept(own / f"weights-{team.rank}.pt"),
                    signals([signal.SIGINT] if interrupted else [], epoch=1),
                ):
                    chosen = tiny(*settings)
                    run(chosen, held, CPU, None if "phantom" in name else parts(), team)
            except IchfastError as error:
                own.with_name(f"{own.name}-error-{team.rank}.txt").write_text(str(error))
        if (folder / "numbers").exists():
            numbers(folder / "numbers", team)


@contextmanager
def weights_kept(path: Path) -> Iterator[None]:
    """At the end of training, before the best ones take their place."""
    real = loop.train

    def kept(model: nn.Module, *rest: Any) -> bool:
        finished: bool = real(model, *rest)  # type: ignore[arg-type]
        torch.save(model.state_dict(), path)
        return finished

    pipeline.train = kept  # type: ignore[assignment]
    yield
    pipeline.train = real


@contextmanager
def signals(which: list[signal.Signals], epoch: int) -> Iterator[None]:
    """This process gets them in the epoch."""
    real = loop.check_divergence

    def check(model: Any, progress: Any, *rest: Any) -> None:
        if progress.epochs == epoch:
            for one in which:
                os.kill(os.getpid(), one)
        real(model, progress, *rest)

    loop.check_divergence = check
    yield
    loop.check_divergence = real


def numbers(folder: Path, team: Team) -> None:
    """Each process's share of a batch through the losses and layers: pairs of what it got and what
    one process alone gets for the same images."""
    pairs = {}
    generator = torch.Generator().manual_seed(5)
    draw = partial(torch.randn, generator=generator)
    own = team.share(7)

    for name, dtype in (("float64", torch.float64), ("float32", torch.float32)):
        logits, target = draw(7, 2, 9, 8, dtype=dtype) - 1, draw(7, 2, 9, 8) > 0.7
        mask = draw(7, 1, 9, 8) > -0.5
        for kind, arguments in (
            (partial(TverskyLoss, sigmoid=True), (target,)),
            (TverskyBCELoss, (target, mask)),
        ):
            alone = kind(alpha=0.3, beta=0.7, batch=True)
            together = kind(alpha=0.3, beta=0.7, batch=True, group=team.group)
            part, whole = (x.clone().requires_grad_() for x in (logits[own], logits))
            loss, expected = together(part, *(x[own] for x in arguments)), alone(whole, *arguments)
            (3 * loss).backward()
            (3 * expected).backward()
            about = f"tversky of {len(arguments) + 1} {name}"
            pairs[about] = (loss, expected)
            pairs[f"{about} gradient"] = (part.grad, whole.grad[own])

        images, cotangent = 2 * draw(7, 3, 4, 5, dtype=dtype) + 5, draw(7, 3, 4, 5, dtype=dtype)
        for mode, layout in product(
            ("tracked", "averaged", "untracked"), (torch.contiguous_format, torch.channels_last)
        ):
            images = images.contiguous(memory_format=layout)
            norm = nn.BatchNorm2d(3, momentum=None if mode == "averaged" else 0.1).to(dtype)
            with torch.no_grad():
                norm.weight.copy_(draw(3))
                norm.bias.copy_(draw(3))
            synced = SyncedBatchNorm2d.from_norm(models_copy(norm))
            for one in (norm, synced):
                one.track_running_stats = mode != "untracked"
            part, whole = (x.clone().requires_grad_() for x in (images[own], images))
            for _ in range(2):
                got, expected = synced(part), norm(whole)
                (got * cotangent[own]).sum().backward()
                (expected * cotangent).sum().backward()
            about = f"norm {mode} {layout} {name}"
            pairs[about] = (got, expected[own])
            pairs[f"{about} gradient"] = (part.grad, whole.grad[own])
            for key in ("weight", "bias"):
                total = team.sum(getattr(synced, key).grad.clone())
                pairs[f"{about} {key}"] = (total, getattr(norm, key).grad)
            for key, value in norm.state_dict().items():
                pairs[f"{about} {key}"] = (synced.state_dict()[key], value)
            pairs[f"{about} inference"] = (synced.eval()(images), norm.eval()(images))

    value = draw(7, dtype=torch.float64).requires_grad_()
    mean = team.mean(value[own].mean(), len(value[own]))
    (2 * mean).backward()
    pairs["mean"] = (mean, value.mean())
    pairs["mean gradient"] = (value.grad[own], torch.full_like(value[own], 2 / 7))

    model = models.build("unet", (2, 3, 4), 0)
    evaluated = partial(
        evaluate, model, parts().test, batch_size=4, loss=make_supervised_loss(tiny())
    )
    mine, single = evaluated(team=team), evaluated()
    pairs["counts"] = (mine.counts, single.counts)
    pairs["evaluation loss"] = (torch.tensor(mine.loss), torch.tensor(single.loss))
    torch.save(pairs, folder / f"{team.rank}.pt")


def models_copy(norm: nn.BatchNorm2d) -> nn.BatchNorm2d:
    copy = nn.BatchNorm2d(norm.num_features, momentum=norm.momentum).to(norm.weight.dtype)
    copy.load_state_dict(norm.state_dict())
    return copy


def killed(folder: Path) -> int:
    """The command, in which one process is killed: kills.json, [[rank, epoch], …], by restart."""
    kills = json.loads((folder / "kills.json").read_text())
    restart = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    rank, epoch = kills[restart] if restart < len(kills) else (-1, -1)
    mine = rank == int(os.environ["RANK"])
    with signals([signal.SIGKILL] if mine else [], epoch):
        return train.main(json.loads((folder / "arguments.json").read_text()))


def failing(folder: Path) -> int:
    """The command, in which the second process cannot read its data."""

    def fail(recipe: object, phantoms: object, team: Team) -> None:
        if team.rank == 1:
            raise DataError("slice 7 is torn")
        team.any(False)

    pipeline.load_parts = fail  # type: ignore[assignment]
    return train.main(["--out", str(folder / "run")])


def stopped(folder: Path) -> None:
    """One of the processes is stopped for a while, and another waits for it."""
    heartbeat.PULSE, heartbeat.SILENT = 0.2, 1.0
    with join_team() as team:
        team.any(False)
        if team.rank == 1:
            wake = f"sleep 3; kill -CONT {os.getpid()}"
            subprocess.Popen(["sh", "-c", wake], start_new_session=True)
            os.kill(os.getpid(), signal.SIGSTOP)
            time.sleep(1)
        team.any(False)


TASKS: dict[str, Callable[[Path], int | None]] = {
    "runs": runs,
    "killed": killed,
    "failing": failing,
    "stopped": stopped,
}

if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(TASKS[sys.argv[1]](Path(sys.argv[2])))
