"""A model as its user holds it: where it comes from, what it refuses, and what it gives."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import ichfast
from ichfast import models
from ichfast.data import Series
from ichfast.data.resize import resize_hu
from ichfast.data.slices import SliceSet
from ichfast.errors import CheckpointError
from ichfast.evaluation.calibration import Calibration
from ichfast.inference.fit import Fit
from ichfast.inference.model import Model

SIZE, WINDOW = 16, (40.0, 120.0)
RECIPE = """\
[training]
strategy = "supervised"
[data]
size = 16
window = [40.0, 120.0]
[evaluation]
threshold = 0.4
"""


def about(**changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "size": SIZE,
        "window": WINDOW,
        "threshold": 0.4,
        "ichfast": "0.1.0",
        "strategy": "supervised",
        "data": {"train": {"name": "a set", "patients": 2, "slices": 9}},
        "calibration": Calibration.make_empty("a test").model_dump(mode="json"),
    }
    return {key: value for key, value in (values | changes).items() if value is not ...}


def build(kind: str = "unet", seed: int = 0, channels: tuple[int, ...] = (2, 3)) -> Any:
    network = models.build(kind, channels, seed)
    with torch.no_grad():
        network.segmentation.out.weight.mul_(20)  # so that some pixels are above 0.5 and some below
    return network


def write(path: Path, network: Any = None, **changes: Any) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(models.to_bytes(network or build(), about(**changes)))
    return path


def write_run(folder: Path, network: Any = None, *, old: bool = False) -> Path:
    write(folder / "model.safetensors", network)
    if old:
        (folder / "model.safetensors").write_bytes(models.to_bytes(network or build()))
    (folder / "recipe.toml").write_text(RECIPE)
    return folder


def load(tmp_path: Path, network: Any = None, **changes: Any) -> Model:
    return ichfast.load_model(write(tmp_path / "one.safetensors", network, **changes))


def make_hu(n: int = 3, rows: int = SIZE, columns: int = SIZE, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.integers(-100, 150, (n, rows, columns)).astype(np.int16)


def make_series(hu: np.ndarray, **changes: Any) -> Series:
    n = len(hu)
    values: dict[str, Any] = {
        "stored": hu,
        "slope": np.ones(n),
        "intercept": np.zeros(n),
        "padding": None,
        "mask": None,
        "patient": "p",
        "study": "s",
        "series": "t",
        "positions": np.arange(n) * 5.0,
        "spacing": (0.5, 0.5),
        "tilt": 0.0,
        "sources": tuple(f"{i}.dcm" for i in range(n)),
    }
    return Series(**values | changes)


def evaluate_plainly(network: Any, hu: np.ndarray) -> np.ndarray:
    """As training's evaluation sees slices of the network's own size."""
    series = make_series(hu)
    slices = SliceSet(
        hu=torch.from_numpy(resize_hu(series, np.arange(len(hu)), SIZE)),
        masks=None,
        rows=torch.arange(len(hu)),
        window=WINDOW,
        patients=("p",) * len(hu),
        series=("t",) * len(hu),
        positions=tuple(range(len(hu))),
        sources=series.sources,
        spacings=((0.5, 0.5),) * len(hu),
    )
    image, _ = slices.batch(range(len(hu)))
    with torch.no_grad():
        return network.eval().segment(image)[:, 0].sigmoid().numpy()


def close(one: np.ndarray, other: np.ndarray) -> bool:
    """To what bfloat16 leaves, where the processor has it."""
    return np.allclose(one, other, atol=3e-2)


@pytest.mark.parametrize("kind", ["unet", "multitask"])
def test_slices_of_its_own_size_are_segmented_as_evaluation_does(tmp_path, kind) -> None:
    network = build(kind)
    found = load(tmp_path, network).segment(make_hu())
    assert found.dtype == np.float32
    assert close(found, evaluate_plainly(network, make_hu()))


@pytest.mark.parametrize(
    "dtype", ["int16", "int32", "int64", "uint16", "float16", "float32", "float64", ">i2", ">f4"]
)
def test_any_real_dtype(tmp_path, dtype) -> None:
    hu = np.abs(make_hu())
    model = load(tmp_path)
    assert np.array_equal(model.segment(hu.astype(dtype)), model.segment(hu))
    turned = np.asfortranarray(hu.astype(dtype))
    assert np.array_equal(model.segment(turned), model.segment(hu))
    assert np.array_equal(model.segment(torch.from_numpy(hu)), model.segment(hu))


def test_what_is_not_finite_is_air(tmp_path) -> None:
    model, hu = load(tmp_path), make_hu().astype(np.float64)
    air = hu.copy()
    odd = [np.nan, np.inf, -np.inf, 1e300]
    hu[0, 0, :4], air[0, 0, :4] = odd, -1000
    assert np.array_equal(model.segment(hu), model.segment(air))
    assert np.isnan(hu[0, 0, 0])  # the caller's own stays
    hu[0, 0, 3] = np.nan  # no float32
    series = make_series(hu.astype(np.float32))
    for own, found in model.segment_series(series):
        assert np.array_equal(found, model.segment(air)[own])


def test_a_series_is_segmented_as_its_hu(tmp_path) -> None:
    model, hu = load(tmp_path), make_hu(7, 20, 24)
    expected = model.segment(hu, (0.5, 0.5))
    stored = ((hu + 1024) // 2 * 2 + 6).astype(np.int16)
    stored[:, 0, :5] = -2000
    plain = (stored - 1030).astype(np.float32)
    plain[:, 0, :5] = -1000
    series = make_series(stored, intercept=np.full(7, -1030.0), padding=-2000.0)
    for size in (1, 3, 100):
        batches = list(model.segment_series(series, batch_size=size))
        assert [own.start for own, _ in batches] == list(range(0, 7, size))
        found = np.concatenate([probability for _, probability in batches])
        assert found.shape == expected.shape
        assert np.allclose(found, model.segment(plain, (0.5, 0.5)), atol=1e-6)
    floating = make_series(
        stored.astype(np.float32), intercept=np.full(7, -1030.0), padding=-2000.0
    )
    ((_, found),) = model.segment_series(floating)
    assert np.allclose(found, model.segment(plain, (0.5, 0.5)), atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "spacing", "fit"),
    [
        ((512, 512), None, (0, 0, 96, 96)),
        ((512, 512), (0.4883, 0.488281), (0, 0, 96, 96)),
        ((512, 666), (0.5, 0.5), (11, 0, 74, 96)),
        ((666, 512), (float("nan"), float("nan")), (0, 11, 96, 74)),
        ((512, 256), (0.5, 1.0), (0, 0, 96, 96)),
        ((512, 512), (0.5, 1.0), (24, 0, 48, 96)),
        ((1, 1000), None, (47, 0, 1, 96)),
    ],
)
def test_slices_keep_their_proportions(shape, spacing, fit) -> None:
    assert Fit.make(*shape, spacing, 96) == (96, *fit)


def test_a_slice_that_is_not_square_is_seen_as_one_padded_with_air(tmp_path) -> None:
    network = build()
    model = load(tmp_path, network)
    hu = make_hu(2, 8, SIZE)
    padded = np.full((2, SIZE, SIZE), -1000, np.int16)
    padded[:, 4:12] = hu
    assert close(model.segment(hu), evaluate_plainly(network, padded)[:, 4:12])
    # The same head with rows twice as far apart.
    twice = np.repeat(hu, 2, axis=1)
    assert close(model.segment(hu, (1.0, 0.5))[:, :1], model.segment(twice)[:, :1])


def test_the_way_back_is_exact_for_a_smooth_edge(tmp_path) -> None:
    """A step half-way across a slice stays half-way across, whatever its shape."""
    logits = torch.linspace(-4, 4, 96).expand(1, 1, 96, 96).contiguous()
    for rows, columns in ((512, 512), (512, 666), (96, 96), (40, 50)):
        fit = Fit.make(rows, columns, None, 96)
        back = fit.restore(logits, rows, columns)[0]
        assert back.shape == (rows, columns)
        blood = (back > 0).double().mean()
        assert abs(blood - 0.5) <= 1 / columns


def test_batches_are_as_large_as_memory_has_room_for(tmp_path, monkeypatch) -> None:
    model = load(tmp_path)
    monkeypatch.setattr("ichfast.inference.model.AT_ONCE", 2 * SIZE**2 * 2)
    series = make_series(make_hu(5))
    assert [own for own, _ in model.segment_series(series)] == [
        slice(0, 2),
        slice(2, 4),
        slice(4, 5),
    ]
    assert model.segment(make_hu(0)).shape == (0, SIZE, SIZE)


@pytest.mark.parametrize(
    ("hu", "spacing", "error", "says"),
    [
        (np.zeros((4, 4)), None, ValueError, r"\(n, H, W\)"),
        (np.zeros((1, 0, 4)), None, ValueError, r"\(n, H, W\)"),
        (np.zeros((1, 4, 4), complex), None, TypeError, "real dtype"),
        (np.array([[["a"]]]), None, TypeError, "real dtype"),
        (np.zeros((1, 4, 4)), (0.0, 1.0), ValueError, "spacing must be"),
        (np.zeros((1, 4, 4)), (float("inf"), 1.0), ValueError, "spacing must be"),
        (np.zeros((1, 4, 4)), (5.0, 0.5, 0.5), ValueError, "spacing must be"),
        (np.zeros((1, 4, 4)), (0.5,), ValueError, "spacing must be"),
    ],
)
def test_what_is_no_slice(tmp_path, hu, spacing, error, says) -> None:
    with pytest.raises(error, match=says):
        load(tmp_path).segment(hu, spacing)


def test_the_batch_size_is_checked(tmp_path) -> None:
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        list(load(tmp_path).segment_series(make_series(make_hu()), batch_size=0))


def test_a_file_says_what_its_model_takes(tmp_path) -> None:
    model = load(tmp_path, name="mine", licence="CC BY 4.0")
    assert (model.name, model.size, model.window, model.threshold) == ("mine", SIZE, WINDOW, 0.4)
    assert model.calibration.reasons["volume"] == "a test"
    assert model.about["licence"] == "CC BY 4.0"
    assert model.about["data"]["train"]["patients"] == 2
    json.dumps(model.about)


@pytest.mark.parametrize("old", [False, True])
def test_a_run_folder(tmp_path, old) -> None:
    model = ichfast.load_model(str(write_run(tmp_path / "fold3", old=old)))
    assert (model.name, model.size, model.window, model.threshold) == ("fold3", SIZE, WINDOW, 0.4)
    assert ("did not calibrate" in model.calibration.reasons["scan"]) == old


def test_logits_of_several_are_averaged(tmp_path) -> None:
    networks = [build("unet", 0), build("multitask", 1), build("unet", 2, (3, 4))]
    runs = [write_run(tmp_path / f"fold{i}", network) for i, network in enumerate(networks)]
    model = ichfast.load_model(runs)
    alone = [evaluate_plainly(network, make_hu()) for network in networks]
    logits = np.mean([np.log(p / (1 - p)) for p in alone], axis=0)
    assert close(model.segment(make_hu()), 1 / (1 + np.exp(-logits)))
    assert model.name == "fold0 + fold1 + fold2"
    assert model.about["networks"] == 3
    assert model.calibration.temperature is None
    assert "an average of 3 models" in model.calibration.reasons["temperature"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"size": 32}, "their size is 16 and 32"),
        ({"window": (50.0, 100.0)}, "their window is"),
        ({"threshold": 0.5}, "their threshold is 0.4 and 0.5"),
    ],
)
def test_several_that_do_not_belong_together(tmp_path, changes, says) -> None:
    one, other = write(tmp_path / "one.safetensors"), write(tmp_path / "b.safetensors", **changes)
    with pytest.raises(CheckpointError, match=says):
        ichfast.load_model([one, other])
    with pytest.raises(CheckpointError, match="no model given"):
        ichfast.load_model([])


def test_the_weights_that_ship() -> None:
    model = ichfast.load_model()
    assert (model.name, model.size, model.threshold) == ("ct-ich", 96, 0.5)
    assert model.about["data"]["train"]["patients"] == 82
    assert "CC BY 4.0" in model.about["licence"]
    assert "nobody was left to calibrate on" in model.calibration.reasons["temperature"]
    assert model.calibration.interval((1, 2)) is None
    scan = model.calibration.scan
    assert scan is not None
    assert (scan.unit, scan.positive, scan.negative) == ("pixels per slice", 36, 46)
    assert model.calibration.source.startswith("CT-ICH, judged by models trained alike")
    assert model.segment(make_hu(1, 40, 50)).shape == (1, 40, 50)


def change(path: Path, **tensors: Any) -> None:
    """Other tensors in the file; ... removes one."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        kept = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    kept = {name: tensor for name, tensor in (kept | tensors).items() if tensor is not ...}
    save_file(kept, path, metadata=metadata)


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        ({"segmentation.out.bias": torch.tensor([torch.nan])}, "out.bias are not finite"),
        ({"segmentation.out.bias": torch.tensor([torch.inf])}, "out.bias are not finite"),
        ({"segmentation.out.bias": torch.tensor([1e300]).double()}, "out.bias are not finite"),
        ({"segmentation.out.bias": torch.ones(1) * 1j}, "out.bias is no tensor of numbers"),
        (
            {"segmentation.out.bias": torch.full((1,), torch.nan).to(torch.float8_e4m3fn)},
            "out.bias are not finite",
        ),
        ({"encoder.levels.0.1.running_var": -torch.ones(2)}, "has a negative variance"),
        ({"segmentation.out.bias": torch.zeros(2)}, r"out.bias is \(2,\) and should be \(1,\)"),
        ({"segmentation.out.bias": ...}, "lacks segmentation.out.bias"),
        ({"more": torch.zeros(1)}, "also has more"),
    ],
)
def test_weights_that_cannot_work(tmp_path, tensors, says) -> None:
    path = write(tmp_path / "one.safetensors")
    change(path, **tensors)
    with pytest.raises(CheckpointError, match=says) as refused:
        ichfast.load_model(path)
    assert str(path) in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"size": ...}, "size: Field required"),
        ({"size": 17}, "size 17 is no multiple of 2"),
        ({"size": 2**20}, "size: Input should be less than or equal to 4096"),
        ({"window": (1e300, 80.0)}, "beyond 1e[+]06 HU"),
        ({"name": "../mine"}, "name: String should match"),
        ({"name": "mine\n"}, "name: String should match"),
        ({"window": (40.0, 1.0)}, "width 1 must be above 1 HU"),
        ({"threshold": 1.5}, "threshold: Input should be less than or equal to 1"),
        ({"threshold": float("nan")}, "threshold"),
        ({"more": 1}, "more: Extra inputs are not permitted"),
        ({"calibration": {}}, "calibration.temperature: Field required"),
    ],
)
def test_a_description_that_is_not_whole(tmp_path, changes, says) -> None:
    path = write(tmp_path / "one.safetensors", **changes)
    with pytest.raises(CheckpointError, match=says) as refused:
        ichfast.load_model(path)
    assert str(path) in str(refused.value)


def test_what_is_no_model(tmp_path) -> None:
    lone = tmp_path / "model.safetensors"
    lone.write_bytes(models.to_bytes(build()))
    with pytest.raises(CheckpointError, match=r"give its run folder, or .* ichfast\.export RUN"):
        ichfast.load_model(lone)
    endless = json.dumps({"model": "unet", "channels": [2], "convolutions": 10**9})
    for metadata in (None, {"ichfast": endless}):
        save_file({"weight": torch.zeros(1)}, lone, metadata=metadata)
        with pytest.raises(CheckpointError, match="no weights of an ichfast model"):
            ichfast.load_model(lone)
    lone.write_text("rubbish")
    with pytest.raises(CheckpointError, match="cannot be read as a safetensors file"):
        ichfast.load_model(lone)
    with pytest.raises(CheckpointError, match="does not exist"):
        ichfast.load_model(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match=r"is no run: it has no recipe\.toml"):
        ichfast.load_model(tmp_path)
    (tmp_path / "recipe.toml").write_text(RECIPE)
    lone.unlink()
    with pytest.raises(CheckpointError, match="has no weights yet; give another run"):
        ichfast.load_model(tmp_path)
    write_run(tmp_path, old=True)
    (tmp_path / "recipe.toml").write_text("[data]\n")
    with pytest.raises(CheckpointError, match="is not the recipe of a run"):
        ichfast.load_model(tmp_path)


def test_importing_ichfast_stays_light() -> None:
    code = (
        "import sys, ichfast; heavy = {'ichfast.inference', 'ichfast.data', 'pydantic', 'pydicom'};"
        "sys.exit(bool(heavy & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'load_modell'"):
        ichfast.load_modell  # noqa: B018
