"""The benchmarks run and tell the truth about what they ran; how fast anything is, no test says."""

import json
import platform
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks import __main__ as command
from benchmarks import bench_ct_window, bench_tversky, harness, machine, memory, report
from benchmarks.harness import COPY, OURS, Case, Owed


def double(x: Tensor) -> Sequence[Tensor]:
    return (x * 2,)


def case(**contenders: Callable[[], Sequence[Tensor]]) -> Case:
    x = torch.arange(1.0, 9.0)
    return Case(
        op="double",
        work="forward",
        shape="8",
        dtype="float32",
        contenders={OURS: lambda: double(x), "eager": lambda: double(x), **contenders},
        read=(x,),
        written=(x,),
        tolerance=1e-6,
        owed=(Owed("eager", 0.0), Owed("eager", 1e9), Owed(COPY, 0.0), Owed("compile", 1.0)),
    )


@pytest.fixture(autouse=True)
def keep_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_command_writes_json_and_table(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(bench_tversky, "compiled", lambda function: function)  # saves its minute
    ops = "tversky,overlap_counts"
    command.main(["--quick", "--threads", "1", "--ops", ops, "--out", str(tmp_path)])
    (path,) = tmp_path.glob("*.json")
    results = json.loads(path.read_text(encoding="utf-8"))
    assert path.stem == machine.slug()
    assert {"cpu", "cores", "threads", "os"} <= results["machine"].keys()
    assert results["versions"]["torch"] == torch.__version__
    for record in results["results"]:
        assert record["op"] in ops
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
    monkeypatch.setattr(command, "_cases", lambda op, quick: [case])
    command.main(["--ops", "tversky", "--quick", "--threads", "1"])
    assert not list(tmp_path.iterdir())
    assert "Not written" in capsys.readouterr().out


def test_unknown_op_is_named(capsys):
    with pytest.raises(SystemExit):
        command.main(["--ops", "tversky,conv"])
    assert "no op 'conv'" in capsys.readouterr().err


@pytest.mark.parametrize("op", command.OPS)
def test_every_op_agrees_with_its_contenders(op):
    for quick in (make() for make in command._cases(op, quick=True)):
        eager = Case(
            **{
                **vars(quick),
                "contenders": {n: r for n, r in quick.contenders.items() if n != "compile"},
            }
        )
        assert OURS in harness._checked(eager)[0]


def test_verdicts():
    record = harness.measure(case(), threads=1, seconds=0.01)
    easy, impossible, copy, absent = record["owed"]
    assert easy["holds"] is True
    assert impossible["holds"] is False
    assert copy["holds"] is False
    assert (absent["measured"], absent["holds"]) == (None, None)


def test_missing_compiler_is_said_and_the_rest_goes_on():
    def broken() -> Sequence[Tensor]:
        raise FileNotFoundError("/somewhere/g++")

    record = harness.measure(case(compile=broken), threads=1, seconds=0.01)
    assert record["unavailable"] == {"compile": "FileNotFoundError"}
    assert "no compile (FileNotFoundError)" in report.line(record)
    assert "somewhere" not in json.dumps(record)


def test_a_contender_that_does_other_work_is_refused():
    other = case(numpy=lambda: (torch.full((8,), 2.0),))
    with pytest.raises(AssertionError, match="numpy"):
        harness.measure(other, threads=1, seconds=0.01)


def test_copy_moves_the_traffic_of_the_op():
    quick = bench_ct_window.cases(quick=True)[0]()
    copied = sum(2 * tensor.nbytes for tensor in harness._copy(quick)())
    assert copied == pytest.approx(quick.traffic, abs=8)


def test_peak_counts_what_is_held_at_once():
    def run() -> Sequence[Tensor]:
        large = torch.ones(100_000, dtype=torch.uint8)
        small = large[:10].clone()
        del large
        return (torch.ones(50_000, dtype=torch.uint8), small)

    assert memory.peak_extra(run) == pytest.approx(100_000, abs=1_000)


def test_results_name_no_host_and_no_folder():
    text = json.dumps([machine.machine(1), machine.versions(), machine.commit(), machine.slug()])
    assert platform.node() not in text
    assert str(Path.home()) not in text
    assert str(Path(machine.__file__).parent) not in text
