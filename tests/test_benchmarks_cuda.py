"""The CUDA side of the benchmarks, on the CPU: what can be known without a GPU."""

import inspect
import json
from collections.abc import Callable, Sequence
from importlib import import_module
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fake_cuda import L2, FakeCuda, FakeGraph
from torch import Tensor

from benchmarks import __main__ as command
from benchmarks import (
    bench_ct_window,
    bench_tversky,
    cupy_window,
    devices,
    harness,
    machine,
    passes,
    readme,
    report,
)
from benchmarks.devices import Cuda, Prepared
from benchmarks.harness import BANDWIDTH, COPY, GRAPH, OURS, SINGLE, Case, Target


@pytest.fixture
def cuda(monkeypatch):
    fake = FakeCuda()
    monkeypatch.setattr(devices, "cuda", fake)
    monkeypatch.setattr(machine, "cuda", fake)
    monkeypatch.setattr(Cuda, "sample_seconds", 1e-4)
    return fake


@pytest.fixture
def device(cuda):
    return Cuda(torch.device("cpu"))


@pytest.fixture(autouse=True)
def nothing_is_compiled(monkeypatch):
    """Compiling takes a minute a function."""
    for op in command.OPS:
        module = import_module(f"benchmarks.bench_{op}")
        monkeypatch.setattr(module, "compile_static", lambda function: function, raising=False)


@pytest.fixture
def numpy_as_cupy(monkeypatch):
    library = SimpleNamespace(
        **{name: getattr(np, name) for name in ("minimum", "maximum")},
        fuse=lambda function: function,
        from_dlpack=lambda tensor: tensor.numpy(),
    )
    monkeypatch.setattr(cupy_window, "_import_cupy", lambda: library)
    cupy_window._fuse.cache_clear()
    yield
    cupy_window._fuse.cache_clear()


def case(
    double: Callable[[Tensor], Tensor], sets: int = 3, targets: tuple[Target, ...] = ()
) -> Case:
    inputs = [torch.arange(1.0, 9.0) + seed for seed in range(sets)]

    def runs(function: Callable[[Tensor], Tensor]) -> list[devices.Run]:
        return [lambda x=x: (function(x),) for x in inputs]

    return Case(
        op="double",
        work="forward",
        shape="8",
        dtype="float32",
        contenders={OURS: runs(double), "eager": runs(lambda x: x + x)},
        read=inputs[:1],
        written=inputs[:1],
        tolerance=1e-6,
        in_graph=(OURS, "eager"),
        targets=targets,
    )


def test_the_stand_in_has_nothing_that_torch_lacks():
    names = [name for name in vars(FakeCuda) if not name.startswith("_")]
    assert names
    assert all(hasattr(torch.cuda, name) for name in names)
    inspect.signature(torch.cuda.graph).bind(object(), stream=object())
    inspect.signature(torch.cuda.Event.__new__).bind(object, enable_timing=True)


@pytest.fixture
def spend(monkeypatch, cuda):
    """Lets time pass on a clock that stands still otherwise; waiting for the device takes 100 s."""
    now = 0.0

    def advance(seconds: float) -> None:
        nonlocal now
        now += seconds

    wait = cuda.synchronize
    monkeypatch.setattr(cuda, "clock", lambda: now)
    monkeypatch.setattr(cuda, "synchronize", lambda: (advance(100), wait()))
    return advance


def test_runs_alone_are_timed_on_an_idle_device_with_its_cache_flushed(cuda, device, spend):
    def run() -> Sequence[Tensor]:
        assert cuda.clock() >= 100  # the device was waited for
        assert set(device._scratch.tolist()) == {1}
        spend(2)
        return ()

    assert device._scratch.nbytes > 2 * L2
    device._scratch.fill_(0)
    assert device.time([[run, run], [run]]) == 6


def test_only_the_second_half_of_a_prepared_run_is_timed(device, spend):
    def prepare():
        spend(10)
        return lambda: spend(1) or ()

    assert device.time(harness._group([Prepared(prepare), Prepared(prepare)])) == 2


def test_input_sets_outgrow_the_cache_and_differ(device):
    def inputs(generator: torch.Generator) -> passes.Inputs:
        return passes.Inputs((torch.rand(1000, generator=generator),))

    sets = passes.make_input_sets(inputs, device)
    values = [one.arguments[0] for one in sets]
    assert sum(value.nbytes for value in values) > 2 * L2
    assert not torch.equal(values[0], values[1])
    assert device.count_sets(3 * L2) == 1


def test_a_graph_is_captured_after_warm_up_and_replays(cuda, device):
    x, calls = torch.arange(3.0), []

    def run() -> Sequence[Tensor]:
        calls.append(cuda.streams[-1])
        return (x * 2,)

    replay = device.capture([run])
    assert calls == ["side", "side"]
    assert cuda.streams == ["default"]
    x += 1
    assert replay()[0].tolist() == [2, 4, 6]
    assert len(calls) == 2


def test_small_cases_are_called_in_three_ways(device):
    targets = (Target("eager", 0.0, graph=True), Target(BANDWIDTH, 0.0), Target(BANDWIDTH, 1e9))
    record = harness.measure(
        case(lambda x: x * 2, targets=targets), device, threads=1, seconds=0.01
    )
    for way in (SINGLE, GRAPH):
        assert record[way].keys() == {OURS, "eager"}
        assert record[way][OURS]["median"] > 0
    assert record[SINGLE][OURS]["calls_per_round"] == 1
    assert record[GRAPH][OURS]["calls_per_round"] % 3 == 0
    assert record["not_captured"] == {}
    assert [verdict["holds"] for verdict in record["targets"]] == [True, True, False]
    assert record["targets"][0]["graph"] is True


def test_what_cannot_be_captured_is_said(device):
    def double(x: Tensor) -> Tensor:
        return x * 2 if x.sum().item() else x

    targets = (Target("eager", 0.0, graph=True),)
    record = harness.measure(case(double, targets=targets), device, threads=1, seconds=0.01)
    assert record["not_captured"] == {OURS: "RuntimeError"}
    assert record["targets"][0]["holds"] is None


def test_a_replay_that_does_nothing_is_refused(monkeypatch, device):
    monkeypatch.setattr(FakeGraph, "replay", lambda self: None)
    with pytest.raises(harness.Disagreement, match="ichfast in a graph is nan"):
        harness.measure(case(lambda x: x * 2), device, threads=1, seconds=0.01)


def test_peak_is_what_the_allocator_saw_beyond_what_was_held(cuda, device):
    cuda.held = 1000

    def run() -> Sequence[Tensor]:
        cuda.peak = 1600
        return ()

    assert device.measure_peak(run) == 600


def test_monai_is_the_same_loss(device):
    pytest.importorskip("monai")
    (plan,) = (plan for plan in bench_tversky.PLANS["cuda"] if plan.in_graph and plan.size[0] == 8)
    (one,) = bench_tversky._make_cases(device, plan.quick())
    assert "monai" in harness._check(one)[0]


@pytest.mark.usefixtures("numpy_as_cupy")
def test_cupy_expressions_are_the_same_window(device):
    (one,) = bench_ct_window.list_cases(device, quick=True)[0]()
    del one.contenders["cupy kernel"]  # C++ for a GPU
    assert {"cupy", "cupy tight"} <= harness._check(one)[0].keys()


def test_what_owes_a_share_of_bandwidth_moves_512_megabytes(device):
    """By the plans: nothing as large is made here."""
    per_voxel = {  # values read and written
        "tversky": {"forward": 2, "backward": 3},
        "attention_wmse": {"forward": 4, "backward": 6},  # "stop", the smaller one
        "attention_mask": {"forward": 4, "backward": 5},
    }
    for op, values in per_voxel.items():
        tables = __import__(f"benchmarks.bench_{op}", fromlist=["PLANS"]).PLANS
        plans = [p for key, table in tables.items() if "cuda" in key for p in table]
        assert any(plan.targets_apart for plan in plans)
        for plan in plans:
            for work in plan.works if plan.targets_apart else ():
                if work in values:
                    voxels = torch.Size(plan.size).numel()
                    assert values[work] * voxels * plan.dtype.itemsize >= 512e6


def run_all(monkeypatch, device, *arguments: str) -> int:
    monkeypatch.setattr(command, "_device", lambda kind: device)
    return command.main(["--device", "cuda", "--threads", "1", *arguments])


@pytest.mark.usefixtures("numpy_as_cupy")
def test_the_whole_of_it(monkeypatch, device, tmp_path, capsys):
    assert run_all(monkeypatch, device, "--quick", "--out", str(tmp_path)) == 0
    path = tmp_path / "nvidia-h100-80gb-hbm3.json"
    assert sorted(tmp_path.iterdir()) == [path, path.with_suffix(".md")]
    results = json.loads(path.read_text(encoding="utf-8"))
    assert results["complete"] is True
    assert results["machine"]["gpu"]["compute_capability"] == "9.0"
    assert {"triton", "cupy", "cuda"} <= results["versions"].keys()
    works = {(record["op"], record["work"]) for record in results["results"]}
    for op in ("tversky", "attention_mask"):
        assert {(op, work) for work in passes.APART} <= works
    assert ("attention_wmse", 'backward, "stop"') in works
    for record in results["results"]:
        assert not record.get("not_captured")
        assert {OURS, "eager", COPY} <= record["contenders"].keys()
    (window,) = (record for record in results["results"] if record["op"] == "ct_window")
    assert window["images_per_s"] > 0
    assert {"cupy", "cupy tight"} <= window["contenders"].keys()
    assert "cupy kernel" in window["unavailable"]
    table = path.with_suffix(".md").read_text(encoding="utf-8")
    assert table.startswith("NVIDIA H100 80GB HBM3")
    assert "CUDA graph" in table
    assert "of the copy" in table
    assert "KiB beyond the gradients" not in table  # a target of the CPU kernels


RECORD = {
    "op": "tversky",
    "work": "forward",
    "shape": "64×1×1024×1024",
    "dtype": "float32",
    "contenders": {n: {"median": 1e-3, "gb_per_s": 9.0} for n in (OURS, "eager", "monai", COPY)},
    "speedup": {n: {"of_medians": 1.0} for n in ("eager", "monai", COPY)},
    "unavailable": {"compile": "ImportError"},
    "targets": [{"against": BANDWIDTH, "factor": 0.85, "measured": 1.0, "holds": True}],
}


@pytest.fixture
def results(cuda):
    return {
        "complete": True,
        "date": "2026-01-02T03:04:05+00:00",
        "commit": {"hash": "0123456789abcdef", "dirty": False},
        "machine": {"gpu": machine.describe_gpu()},
        "versions": machine.describe_versions("cuda"),
        "results": [RECORD, RECORD | {"dtype": "bfloat16"}, RECORD | {"op": "conv", "targets": []}],
    }


@pytest.fixture
def page(monkeypatch, tmp_path):
    path = tmp_path / "README.md"
    path.write_text(f"before\n\n{readme.START}\nold\n{readme.END}\n\nafter\n", encoding="utf-8")
    monkeypatch.setattr(readme, "README", path)
    return path


def test_readme_table_replaces_what_stood_between_the_markers(results, page, tmp_path):
    source = tmp_path / "results.json"
    source.write_text(json.dumps(results), encoding="utf-8")
    readme.main([str(source)])
    text = page.read_text(encoding="utf-8")
    assert text.startswith(f"before\n\n{readme.START}\nNVIDIA H100 80GB HBM3")
    assert text.endswith(f"|\n\n{readme.END}\n\nafter\n")
    assert "old" not in text
    assert text.count("`tversky` forward") == 1  # a dtype is enough
    assert "conv" not in text
    assert "not available" in text
    assert "MONAI 1 ms (1.00×)" in text
    readme.update(results)
    assert page.read_text(encoding="utf-8") == text


def test_a_whole_run_writes_the_readme(monkeypatch, cuda, device, page, tmp_path, capsys):
    monkeypatch.setattr(command, "RESULTS", tmp_path / "results")
    targets = (Target(BANDWIDTH, 0.85),)
    makers = [lambda: [case(lambda x: x * 2, targets=targets)]]
    monkeypatch.setattr(command, "_list_cases", lambda op, device, quick: makers)
    monkeypatch.setitem(command.SECONDS, "cuda", 0.01)
    assert run_all(monkeypatch, device) == 0
    assert "`double` forward" in page.read_text(encoding="utf-8")
    assert (tmp_path / "results" / "nvidia-h100-80gb-hbm3.md").exists()
    page.write_text("", encoding="utf-8")
    assert run_all(monkeypatch, device) == 1
    assert "add both" in capsys.readouterr().err


def test_readme_without_markers_says_what_to_add(results, page):
    page.write_text(f"{readme.END} {readme.START}", encoding="utf-8")
    with pytest.raises(ValueError, match="add both"):
        readme.update(results)


def test_readme_takes_whole_gpu_runs_only(results, page):
    for other in (results | {"complete": False}, results | {"machine": {}}):
        with pytest.raises(ValueError, match="whole runs"):
            readme.update(other)
    assert "old" in page.read_text(encoding="utf-8")


def test_incomplete_results_say_so(results):
    assert "Incomplete" in report.to_markdown(results | {"complete": False})
