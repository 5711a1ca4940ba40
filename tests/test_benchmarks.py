"""The benchmarks run and tell the truth about what they ran; how fast anything is, no test says."""

import json
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks import __main__ as command
from benchmarks import bench_ct_window, bench_tversky, harness, machine, memory, report
from benchmarks.devices import Cpu
from benchmarks.harness import COPY, OURS, Case, Target

COMMITTED = Path(command.__file__).parent / "results" / "amd-epyc-2-cores.json"


def double(x: Tensor) -> Sequence[Tensor]:
    return (x * 2,)


def case(**contenders: Callable[[], Sequence[Tensor]]) -> Case:
    x = torch.arange(1.0, 9.0)
    runs = {OURS: lambda: double(x), "eager": lambda: double(x), **contenders}
    return Case(
        op="double",
        work="forward",
        shape="8",
        dtype="float32",
        contenders={name: [run] for name, run in runs.items()},
        read=(x,),
        written=(x,),
        tolerance=1e-6,
        targets=(
            Target("eager", 0.0),
            Target("eager", 1e9),
            Target(COPY, 0.0),
            Target("compile", 1.0),
        ),
    )


def measure(case: Case) -> dict:
    return harness.measure(case, Cpu(), threads=1, seconds=0.01)


def test_command_writes_json_and_table(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(
        bench_tversky, "compile_static", lambda function: function
    )  # saves its minute
    ops = ("tversky", "overlap_counts")
    arguments = ["--quick", "--threads", "1", "--ops", ",".join(ops), "--out", str(tmp_path)]
    assert command.main(arguments) == 0
    (path,) = tmp_path.glob("*.json")
    results = json.loads(path.read_text(encoding="utf-8"))
    assert path.stem == machine.make_slug("cpu")
    assert results["complete"] is True
    assert {"cpu", "cores", "threads", "os"} <= results["machine"].keys()
    assert results["versions"]["torch"] == torch.__version__
    assert tuple(dict.fromkeys(record["op"] for record in results["results"])) == ops
    for record in results["results"]:
        ours = record["contenders"][OURS]
        assert 0 < ours["p20"] <= ours["median"] <= ours["p80"]
        assert {OURS, "eager", COPY} <= record["contenders"].keys()
        assert {"compile"} & (record["contenders"].keys() | record["unavailable"].keys())
        assert record["rounds"] >= 11
    memory_of_loss = results["results"][0]["memory"]
    assert memory_of_loss[OURS] >= memory_of_loss["results"] > 0
    element = 2 * 32 * 32 * 4
    assert results["results"][0]["bytes"] == {"read": 4 * element, "written": element}
    table = path.with_suffix(".md").read_text(encoding="utf-8")
    assert "`tversky`" in table
    assert table in capsys.readouterr().out


def test_part_of_a_run_does_not_replace_the_whole(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(command, "RESULTS", tmp_path)
    monkeypatch.setattr(command, "_list_cases", lambda op, device, quick: [lambda: [case()]])
    command.main(["--ops", "tversky", "--quick", "--threads", "1"])
    assert not list(tmp_path.iterdir())
    assert "Not written" in capsys.readouterr().out


def test_a_run_cut_short_keeps_what_it_measured(monkeypatch, tmp_path):
    def cut_short():
        raise KeyboardInterrupt

    monkeypatch.setattr(
        command, "_list_cases", lambda op, device, quick: [lambda: [case()], cut_short]
    )
    with pytest.raises(KeyboardInterrupt):
        command.main(["--ops", "tversky", "--quick", "--threads", "1", "--out", str(tmp_path)])
    (path,) = tmp_path.iterdir()
    assert path.name.endswith(".incomplete.json")
    results = json.loads(path.read_text(encoding="utf-8"))
    assert results["complete"] is False
    assert [record["op"] for record in results["results"]] == ["double"]


def test_a_case_that_fails_is_named_and_the_rest_goes_on(monkeypatch, tmp_path, capsys):
    wrong = case(numpy=lambda: (torch.full((8,), 2.0),))
    makers = [lambda: [wrong], lambda: [case()]]
    monkeypatch.setattr(command, "_list_cases", lambda op, device, quick: makers)
    arguments = ["--ops", "tversky", "--quick", "--threads", "1", "--out", str(tmp_path)]
    assert command.main(arguments) == 1
    assert "Failed: double, forward, 8 float32 (Disagreement)" in capsys.readouterr().err
    (path,) = tmp_path.iterdir()
    assert path.name.endswith(".incomplete.json")
    assert len(json.loads(path.read_text(encoding="utf-8"))["results"]) == 1


def test_unknown_op_is_named(capsys):
    with pytest.raises(SystemExit):
        command.main(["--ops", "tversky,conv"])
    assert "no op 'conv'" in capsys.readouterr().err


@pytest.mark.parametrize("op", command.BENCHMARKS)
def test_every_op_agrees_with_its_contenders(op):
    for make in command._list_cases(op, Cpu(), quick=True):
        for quick in make():
            contenders = {n: r for n, r in quick.contenders.items() if n != "compile"}
            eager = Case(**{**vars(quick), "contenders": contenders})
            assert OURS in harness._check(eager)[0]


def test_verdicts():
    easy, impossible, copy, absent = measure(case())["targets"]
    assert easy["holds"] is True
    assert impossible["holds"] is False
    assert copy["holds"] is False
    assert (absent["measured"], absent["holds"]) == (None, None)


def test_missing_compiler_is_said_and_the_rest_goes_on():
    def broken() -> Sequence[Tensor]:
        raise FileNotFoundError("/somewhere/g++")

    record = measure(case(compile=broken))
    assert record["unavailable"] == {"compile": "FileNotFoundError"}
    assert "no compile (FileNotFoundError)" in report.summarise(record)
    assert "somewhere" not in json.dumps(record)


def test_a_contender_that_does_other_work_is_refused():
    for other in (2.0, float("nan")):
        with pytest.raises(harness.Disagreement, match="numpy"):
            measure(case(numpy=lambda other=other: (torch.full((8,), other),)))
        record = measure(case(monai=lambda other=other: (torch.full((8,), other),)))
        assert record["unavailable"] == {"monai": "Disagreement"}


def test_what_ours_leaves_unwritten_is_found():
    x = torch.arange(1.0, 9.0)
    memory = torch.empty(8)

    def all_but_one() -> Sequence[Tensor]:
        memory[:7] = 2 * x[:7]
        return (memory,)

    memory[7] = 16  # what an earlier call with the same inputs left
    with pytest.raises(harness.Disagreement, match="nan"):
        measure(case(**{OURS: all_but_one}))


def test_copy_moves_the_traffic_of_the_op():
    (quick,) = bench_ct_window.list_cases(Cpu(), quick=True)[0]()
    (copy,) = harness._make_copies(quick, Cpu())
    copied = sum(2 * tensor.nbytes for tensor in copy())
    assert copied == pytest.approx(quick.traffic, abs=8)


def test_peak_counts_what_is_held_at_once():
    def run() -> Sequence[Tensor]:
        large = torch.ones(100_000, dtype=torch.uint8)
        small = large[:10].clone()
        del large
        return (torch.ones(50_000, dtype=torch.uint8), small)

    assert memory.measure_peak(run) == pytest.approx(100_000, abs=1_000)


def test_results_name_no_host_and_no_folder():
    facts = [
        machine.describe_machine(1),
        machine.describe_versions("cuda"),
        machine.describe_commit(),
        machine.make_slug("cpu"),
    ]
    text = json.dumps(facts)
    assert platform.node() not in text
    assert str(Path.home()) not in text
    assert str(Path(machine.__file__).parent) not in text


def test_committed_results_still_give_the_committed_table():
    results = json.loads(COMMITTED.read_text(encoding="utf-8"))
    assert report.to_markdown(results) == COMMITTED.with_suffix(".md").read_text(encoding="utf-8")


def test_cuda_without_a_gpu_is_one_sentence(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert command.main(["--device", "cuda"]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert err.count("\n") == 1
    assert "needs a GPU" in err


def test_cuda_without_kernels_is_one_sentence(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(command.ichfast, "build_info", lambda: {"cuda": False})
    assert command.main(["--device", "cuda"]) == 2
    assert "ICHFAST_CUDA=1" in capsys.readouterr().err


def test_ours_alone_beside_the_copy(capsys, tmp_path) -> None:
    words = ["--quick", "--alone", "--ops", "attention_mask,tversky", "--out", str(tmp_path)]
    assert command.main(words) == 0
    (path,) = tmp_path.glob("*.json")
    records = json.loads(path.read_text())["results"]
    assert {tuple(record["contenders"]) for record in records} == {("ichfast", "copy")}
    assert "faster than" not in capsys.readouterr().out


def test_what_needs_an_absent_package_is_left_out_by_name() -> None:
    """As on a machine with torch and little else."""
    code = """
import sys
sys.modules.update(dict.fromkeys(("pydantic", "tomli_w", "pydicom", "nibabel", "monai")))
from benchmarks.__main__ import main
sys.exit(main(["--quick", "--ops", sys.argv[1]]))
"""

    def measure(ops: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code, ops]
        return subprocess.run(
            command, cwd=COMMITTED.parents[2], capture_output=True, text=True, check=False
        )

    found = measure("attention_mask")
    assert found.returncode == 0, found.stderr
    assert "left out, since" in found.stderr
    found = measure("train_step")
    assert found.returncode == 2
    assert "train_step needs" in found.stderr
