"""The script's functions by node's own test runner, and against Python on the same slice."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import ichfast.viewer
from ichfast.viewer.pack import pack_slice

VOXELS = Path(ichfast.viewer.__file__).with_name("voxels.js")
NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="node is not installed: apt install nodejs")


def run_node(*arguments: str, **more: str) -> str:
    assert NODE is not None
    done = subprocess.run(
        [NODE, *arguments], capture_output=True, text=True, timeout=120, check=False, **more
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_unit_tests_of_the_script():
    run_node("--test", str(Path(__file__).with_name("voxels.test.js")))


@pytest.mark.parametrize("with_target", [False, True])
def test_a_packed_slice_is_unpacked_exactly(with_target):
    random = np.random.default_rng(0)
    hu = random.integers(-3000, 5000, (7, 5)).astype(np.int16)
    probability = random.integers(0, 256, (7, 5)).astype(np.uint8)
    target = probability > 99 if with_target else None
    script = (
        f"require({json.dumps(str(VOXELS))}).unpackSlice(process.argv[1], 7, 5).then((s) =>"
        "console.log(JSON.stringify([s.hu, s.probability, s.target].map((a) => a && [...a]))))"
    )
    back = json.loads(run_node("-e", script, pack_slice(hu, probability, target)))
    expected = [hu.clip(-1024, 3071).ravel(), probability.ravel()]
    assert back[:2] == [array.tolist() for array in expected]
    assert back[2] == (None if target is None else target.ravel().astype(int).tolist())


def test_numbers_are_written_as_python_writes_them():
    values = [0.0, 0.04, 0.05, 0.25, 0.35, 0.75, 1.25, 12.25, 12.35, 99.95, 7.6787]
    values += np.random.default_rng(0).uniform(0, 200, 200).tolist()
    script = (
        f"const {{ formatTenths }} = require({json.dumps(str(VOXELS))});"
        "console.log(JSON.stringify(JSON.parse(process.argv[1]).map(formatTenths)))"
    )
    assert json.loads(run_node("-e", script, json.dumps(values))) == [f"{v:.1f}" for v in values]
