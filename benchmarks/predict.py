"""How long `python -m ichfast.predict` takes, and what memory; and beside plain PyTorch.

    python -m benchmarks.predict --out benchmarks/results

Writes two DICOM series of 35 slices, 512x512 int16: a drawn head with noise. The whole command is
measured from its start to its last file, with all its imports, in a process of its own: wall time,
CPU seconds of its threads together, peak memory, and what the second study of the call takes. Then,
in this process and in turn, from files to probabilities on the files' grid: ichfast, and the same
network in eager PyTorch after pydicom's own reading (`dcmread`, `pixel_array`, area interpolation,
sixteen slices at a time, logits interpolated back). Files are warm in the page cache.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydicom import dcmread
from torch.nn import functional as F

from benchmarks import machine
from benchmarks.ct_files import write_ct
from ichfast.data.problems import Problems
from ichfast.data.stacks import read_stacks
from ichfast.inference.model import Model, load_model

SLICES, SIDE, SPACING_MM = 35, 512, 0.45
BATCH = 16


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.predict",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="also write predict.json there")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="(%(default)s)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in (1, 2):
            write_study(folder / "studies" / str(number), number)
        result = {
            "commit": machine.describe_commit(),
            "machine": machine.describe_machine(torch.get_num_threads()),
            "versions": machine.describe_versions("cpu"),
            "slices": [SLICES, SIDE, SIDE],
            "command": measure_command(folder),
            "to_probabilities": compare(folder / "studies" / "1", options.rounds),
        }
    text = json.dumps(result, indent=1)
    print(text)
    if options.out:
        (options.out / "predict.json").write_text(f"{text}\n")
    return 0


def write_study(folder: Path, number: int) -> None:
    folder.mkdir(parents=True)
    y, x = (np.mgrid[:SIDE, :SIDE] - SIDE / 2) * SPACING_MM
    random = np.random.default_rng(number)
    for k in range(SLICES):
        height = 1 - ((k - SLICES / 2) / (0.7 * SLICES)) ** 2
        radius = (x / 72) ** 2 + (y / 92) ** 2
        hu = np.where(radius < height, np.where(radius < 0.8 * height, 35.0, 900.0), -1000.0)
        hu[(x + 25) ** 2 + (y + 10) ** 2 + (5.0 * k - 90) ** 2 < 400] = 65
        stored = (hu + random.normal(0, 5, hu.shape)).astype(np.int16)
        write_ct(
            folder / f"{k:03}.dcm",
            stored,
            k,
            PatientID=f"patient {number}",
            StudyInstanceUID=f"1.2.{number}",
            SeriesInstanceUID=f"1.3.{number}",
            SOPInstanceUID=f"1.4.{number}.{k}",
            PixelSpacing=[SPACING_MM, SPACING_MM],
        )


def measure_command(folder: Path) -> dict[str, Any]:
    """Of one study alone, and of the second of two."""
    seconds, cpu = [], []
    for inputs in (["studies/1"], ["studies/1", "studies/2"]):
        out = folder / f"out-{len(inputs)}"
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "ichfast.predict", *inputs, "--out", str(out)],
            cwd=folder,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        seconds.append(time.perf_counter() - start)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    (result,) = (folder / "out-1").glob("*/result.json")
    return {
        "one_study_s": seconds[0],
        "one_study_cpu_s": cpu[0],
        "second_study_s": seconds[1] - seconds[0],
        "second_study_cpu_s": cpu[1] - cpu[0],
        "peak_mib": round(after.ru_maxrss / 1024),
        "parts_s": json.loads(result.read_text())["seconds"],
        "files": {path.name: path.stat().st_size for path in sorted(result.parent.iterdir())},
    }


def compare(study: Path, rounds: int) -> dict[str, Any]:
    """Medians in ms, and their ratio; each contender warmed up once."""
    model = load_model()
    contenders: dict[str, Callable[[], np.ndarray]] = {
        "ichfast": lambda: segment(study, model),
        "pydicom, PyTorch": lambda: segment_plainly(study, model),
    }
    masks = [contender() > 0.5 for contender in contenders.values()]
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, contender in contenders.items():
            start = time.perf_counter()
            contender()
            times[name].append(1000 * (time.perf_counter() - start))
    ms = {name: statistics.median(values) for name, values in times.items()}
    ours, plain = ms.values()
    agree = float((masks[0] == masks[1]).mean())
    return {"ms": ms, "ratio": plain / ours, "rounds": rounds, "pixels_that_agree": agree}


def segment(study: Path, model: Model) -> np.ndarray:
    (series,) = read_stacks(study, Problems())
    return np.concatenate([probability for _, probability in model.segment_series(series)])


@torch.inference_mode()
def segment_plainly(study: Path, model: Model) -> np.ndarray:
    (network,) = model.network.members
    level, width = model.window
    files = [dcmread(path) for path in study.iterdir()]
    files.sort(key=lambda file: float(file.ImagePositionPatient[2]))
    found = []
    for start in range(0, len(files), BATCH):
        hu = np.stack(
            [
                file.pixel_array.astype(np.float32) * float(file.RescaleSlope)
                + float(file.RescaleIntercept)
                for file in files[start : start + BATCH]
            ]
        )
        image = F.interpolate(torch.from_numpy(hu)[:, None], (model.size, model.size), mode="area")
        image = ((image - level) / width + 0.5).clip(0, 1)
        logits = network.segment(image)
        native = F.interpolate(logits, hu.shape[1:], mode="bilinear", align_corners=False)
        found.append(native.sigmoid()[:, 0].numpy())
    return np.concatenate(found)


if __name__ == "__main__":
    sys.exit(main())
