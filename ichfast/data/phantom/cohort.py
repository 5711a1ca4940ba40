"""Write a whole cohort: patients in parallel, each from its own stream of random numbers."""

import json
import multiprocessing
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ichfast.data.phantom import ct_ich, rsna
from ichfast.data.phantom.patient import make_scan
from ichfast.errors import OutputError, RecipeError
from ichfast.files import find_partials, lock, write_whole
from ichfast.interrupts import shield_children
from ichfast.processes import available_cores, start_worker

VERSION = 1  # raised whenever the same parameters give other files
MANIFEST = "phantom.json"
PARTIAL = "phantom.partial.json"
LOCK = ".lock"
FIX = "Free space or choose another folder with --out."

LABELLED, UNLABELLED = 0, 1  # the two streams of seeds


@dataclass(frozen=True)
class Parameters:
    version: int
    seed: int
    patients: int
    unlabelled_patients: int
    size: int
    slices: int

    def check(self) -> None:
        for name, low, high in (
            ("seed", 0, 2**63 - 1),
            ("patients", 1, 9000),
            ("unlabelled_patients", 0, 100_000),
            ("size", 64, 512),
            ("slices", 3, 60),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise RecipeError(f"phantom: {name} is {value}; it must be from {low} to {high}.")


def write_phantom(
    out: Path,
    *,
    patients: int,
    unlabelled_patients: int,
    size: int = 256,
    slices: int,
    seed: int,
    progress: bool = True,
    workers: int | None = None,
) -> None:
    """Write `out/labelled` (CT-ICH layout), `out/unlabelled` (RSNA layout), `out/phantom.json`.

    The manifest is written last, so its presence means that the phantom is complete; a folder that
    already holds the same phantom is left as it is. Of several processes that ask for it at once,
    one draws it and the others wait. The files do not depend on `workers`.
    """
    parameters = Parameters(VERSION, seed, patients, unlabelled_patients, size, slices)
    parameters.check()
    if workers is None:
        workers = available_cores()
    if workers < 1:
        raise RecipeError(f"phantom: workers is {workers}; it must be at least 1.")
    out = Path(out)
    try:
        if _is_complete(out, parameters):  # perhaps on a disk that nobody may write to
            return
        out.mkdir(parents=True, exist_ok=True)
        _refuse_foreign(out)  # before anything is left in it
        with lock(out / LOCK, _say_who_draws):
            if _prepare(out, parameters):
                _write(out, parameters, progress, workers)
                os.replace(out / PARTIAL, out / MANIFEST)
    except BrokenProcessPool as error:
        raise OutputError(
            "A process that drew the phantom was killed, perhaps because memory ran out. "
            "Run it again with fewer workers."
        ) from error
    except OSError as error:
        where = error.filename or out
        raise OutputError(f"{where}: {error.strerror or error}. {FIX}") from error


def make_patient_stream(seed: int, stream: int, index: int) -> np.random.Generator:
    """A patient's own random numbers, whatever else is generated."""
    seeds = np.random.SeedSequence(seed, spawn_key=(stream, index))
    return np.random.Generator(np.random.PCG64(seeds))


def is_bleeding(index: int) -> bool:
    """Every seventh patient is free of haemorrhage, never the first."""
    return index % 7 != 6


def _say_who_draws(owner: str) -> None:
    print(f"waiting for process {owner}, which draws the phantom", file=sys.stderr)


def _is_complete(out: Path, parameters: Parameters) -> bool:
    """Whether the phantom is there already; OutputError where it is another."""
    if not (out / MANIFEST).exists():
        return False
    _check_parameters(out / MANIFEST, parameters)
    return True


def _check_parameters(manifest: Path, parameters: Parameters) -> None:
    try:
        found = json.loads(manifest.read_text())
    except ValueError:
        found = None
    if found != asdict(parameters):
        raise OutputError(
            f"{manifest.parent} holds a phantom with other parameters ({manifest.name}). "
            "Choose another folder with --out, or delete that one."
        )


def _refuse_foreign(out: Path) -> None:
    """OutputError where the folder holds anything but a phantom, be it half drawn."""
    names = {entry.name for entry in out.iterdir()}
    if names - {LOCK} and not names & {PARTIAL, MANIFEST}:
        raise OutputError(
            f"{out} holds files that are not a phantom. Choose an empty or new folder with --out."
        )


def _prepare(out: Path, parameters: Parameters) -> bool:
    """Make the folders; False where the phantom is there already."""
    if _is_complete(out, parameters):
        return False
    if (out / PARTIAL).exists():
        _check_parameters(out / PARTIAL, parameters)
        for folder, _, _ in os.walk(out):
            for left, _ in find_partials(Path(folder)):
                left.unlink()
    else:
        _refuse_foreign(out)
        text = json.dumps(asdict(parameters), indent=2) + "\n"
        write_whole(out / PARTIAL, text.encode(), lasting=False, fix=FIX)
    for folder in ("labelled/ct_scans", "labelled/masks", f"unlabelled/{rsna.FOLDER}"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    return True


def _write(out: Path, parameters: Parameters, progress: bool, workers: int) -> None:
    tasks = [(LABELLED, index) for index in range(parameters.patients)]
    tasks += [(UNLABELLED, index) for index in range(parameters.unlabelled_patients)]
    results: dict[int, list[Any]] = {LABELLED: [], UNLABELLED: []}
    write_one = partial(_write_patient, out, parameters)
    done = _run(write_one, tasks, min(workers, len(tasks)))
    bar = tqdm(done, total=len(tasks), desc="phantom", unit="patient", disable=not progress)
    for (stream, _), result in zip(tasks, bar, strict=True):
        results[stream].append(result)
    ct_ich.write_tables(out / "labelled", results[LABELLED])
    rsna.write_table(out / "unlabelled", [row for rows in results[UNLABELLED] for row in rows])


def _run(function: Any, tasks: list[tuple[int, int]], workers: int) -> Iterator[Any]:
    if workers == 1:
        yield from map(function, tasks)
        return
    # Spawned, since forking a process that has loaded torch may deadlock.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=start_worker) as pool:
        try:
            with shield_children():  # they start here, and load modules for seconds
                results = pool.map(function, tasks)
            yield from results
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _write_patient(out: Path, parameters: Parameters, task: tuple[int, int]) -> Any:
    stream, index = task
    rng = make_patient_stream(parameters.seed, stream, index)
    scan = make_scan(
        rng,
        parameters.size,
        parameters.slices,
        bleeding=is_bleeding(index),
        may_tilt=stream == UNLABELLED,
    )
    if stream == LABELLED:
        return ct_ich.write_patient(out / "labelled", index, scan)
    return rsna.write_patient(out / "unlabelled", index, scan, parameters.seed, rng)
