"""The decoders' process: what it may take, what it may answer, and what becomes of it."""

import os
import pickle
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from pydicom.uid import JPEG2000Lossless, RLELossless

from ichfast.data import decode_worker, decoder_process, decoders
from ichfast.data.compressed import Stream
from ichfast.data.decode_worker import ANSWER
from ichfast.data.dicom import read_image
from ichfast.data.headers import read_header
from ichfast.data.problems import Refused
from ichfast.data.streams import read_stream

SIDE = 32
WORKER = Path(decode_worker.__file__).read_text()
HEAD = """
import os, signal, struct, sys, time
from multiprocessing.connection import Connection

pipe = Connection(int(sys.argv[1]))
"""
LOOP = """
pipe.send_bytes(b"")
while True:
    request, stream = pipe.recv_bytes(), pipe.recv_bytes()
"""


@pytest.fixture
def path(tmp_path: Path, make_dicom: Any, head: Any) -> Path:
    """A CT slice in RLE, which pydicom itself can decode."""
    stored = (head(SIDE) + 1024).astype(np.uint16)
    dataset = make_dicom(stored, RescaleIntercept=-1024, BitsStored=12)
    dataset.compress(RLELossless, generate_instance_uid=False)
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    return tmp_path / "a.dcm"


@pytest.fixture
def use_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Another program in the worker's place."""

    def use(text: str) -> None:
        script = tmp_path / "worker.py"
        script.write_text(text)
        decoders._get_process().close()
        monkeypatch.setattr(decoder_process, "WORKER", str(script))

    yield use
    decoders._get_process().close()


def child() -> "subprocess.Popen[bytes]":
    process = decoders._get_process().child
    assert process is not None
    return process


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


def wait_for_end(pid: int) -> None:
    end = time.monotonic() + 30
    while is_running(pid):
        assert time.monotonic() < end
        time.sleep(0.01)


# What it answers

GOOD = ANSWER.pack(b"done", b"u2", SIDE, SIDE)
NONSENSE = {
    "nothing": b"",
    "half a head": GOOD[:7],
    "unknown state": b"gone" + GOOD[4:] + bytes(2 * SIDE * SIDE),
    "floats": ANSWER.pack(b"done", b"f4", SIDE, SIDE) + bytes(4 * SIDE * SIDE),
    "objects": ANSWER.pack(b"done", b"O8", SIDE, SIDE) + bytes(2 * SIDE * SIDE),
    "eight bytes": ANSWER.pack(b"done", b"u8", SIDE, SIDE) + bytes(2 * SIDE * SIDE),
    "too few pixels": GOOD + bytes(2 * SIDE * SIDE - 2),
    "half a pixel": GOOD + bytes(2 * SIDE * SIDE - 1),
    "too many pixels": GOOD + bytes(2 * SIDE * SIDE + 2),
    "a larger shape": ANSWER.pack(b"done", b"u2", 2**32 - 1, 2**32 - 1) + bytes(8),
    "no reason": ANSWER.pack(b"fail", b"", 0, 0),
    "a long reason": ANSWER.pack(b"fail", b"", 0, 0) + 65 * b"a",
    "control characters": ANSWER.pack(b"fail", b"", 0, 0) + b"\x1b[2J",
    "a pickle": pickle.dumps(np.zeros((SIDE, SIDE), np.uint16)),
}


@pytest.mark.parametrize("answer", NONSENSE.values(), ids=NONSENSE)
def test_nonsense_is_refused(path: Path, use_worker: Any, answer: bytes) -> None:
    use_worker(f"{HEAD}{LOOP}    pipe.send_bytes({answer!r})")
    with pytest.raises(Refused, match="the decoder answers nonsense"):
        read_image(path)
    assert decoders._get_process().child is None  # whatever else it would say


@pytest.mark.parametrize("shape", [(SIDE // 2, 2 * SIDE), (SIDE, 1), (0, 0)])
def test_another_shape_is_refused(path: Path, use_worker: Any, shape: tuple[int, int]) -> None:
    answer = ANSWER.pack(b"done", b"u2", *shape) + bytes(2 * shape[0] * shape[1])
    use_worker(f"{HEAD}{LOOP}    pipe.send_bytes({answer!r})")
    with pytest.raises(Refused, match="another shape"):
        read_image(path)


TORN = {
    "too much": "pipe.send_bytes(bytes(2**20))",
    "a length below zero": "os.write(pipe.fileno(), struct.pack('!i', -5))",
    "a length beyond memory": "os.write(pipe.fileno(), struct.pack('!iQ', -1, 2**60))",
    "half a message": "os.write(pipe.fileno(), struct.pack('!i', 100) + b'abc'); sys.exit()",
    "an end": "sys.exit()",
    "a crash": "os.abort()",
}


@pytest.mark.parametrize("act", TORN.values(), ids=TORN)
def test_torn_answers_are_refused(path: Path, use_worker: Any, act: str) -> None:
    use_worker(f"{HEAD}{LOOP}    {act}")
    with pytest.raises(Refused, match=r"the decoder (crashed|answers nonsense)"):
        read_image(path)


@pytest.mark.parametrize("act", ["sys.exit(1)", "pipe.send_bytes(b'hello')", "pipe.close()"])
def test_one_that_does_not_start(path: Path, use_worker: Any, act: str) -> None:
    use_worker(f"{HEAD}{act}")
    with pytest.raises(Refused, match="the decoders do not start"):
        read_image(path)


def test_a_decoder_that_prints(path: Path, use_worker: Any) -> None:
    """As libjpeg does about corrupt data, before it reports success."""
    call = "    pixels, _ = get_decoder"
    assert call in WORKER
    use_worker(WORKER.replace(call, f"    os.write(1, b'Corrupt')\n{call}"))
    with pytest.raises(Refused, match="the decoder complains"):
        read_image(path)


# What it may take


@pytest.mark.parametrize("act", ["", "os.write(pipe.fileno(), bytes(2)); "])
def test_a_decoder_that_hangs(
    path: Path, use_worker: Any, act: str, head: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_worker(f"{HEAD}{LOOP}    {act}time.sleep(60)")
    monkeypatch.setattr(decoder_process, "LIMIT_S", 0.1)
    with pytest.raises(Refused, match=r"the decoder took over 0\.1 s"):
        read_image(path)
    monkeypatch.undo()
    np.testing.assert_array_equal(read_image(path).stored, head(SIDE) + 1024)


def test_starting_takes_no_frame_s_time(
    path: Path, use_worker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_worker(WORKER.replace("    logging.disable()", "    __import__('time').sleep(3)"))
    monkeypatch.setattr(decoder_process, "LIMIT_S", 2.5)
    read_image(path)


def test_one_that_starts_too_slowly(
    path: Path, use_worker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_worker(f"{HEAD}time.sleep(60)")
    monkeypatch.setattr(decoder_process, "START_S", 0.1)
    with pytest.raises(Refused, match=r"took over 0\.1 s"):
        read_image(path)


def peak(key: str) -> int:
    """The child's, in bytes."""
    lines = Path(f"/proc/{child().pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1]) << 10


def test_a_frame_beyond_the_memory_is_refused(path: Path) -> None:
    """RLE that says it is of 64,000 x 64,000 pixels; pydicom makes room for all of them first."""
    stream = read_stream(path.read_bytes(), read_header(path))
    header = replace(read_header(path), rows=64_000, columns=64_000)
    with pytest.raises(Refused, match="MemoryError"):
        decoders.decode(stream, header, "pydicom")
    assert peak("VmHWM") < decoder_process.MEMORY
    read_image(path)  # by the same process


def test_a_small_frame_gets_little_memory(path: Path, head: Any, need_decoder: Any) -> None:
    """A header that says one tile of 24,000 x 24,000 pixels, behind the checks that stop it.
    Without a limit, OpenJPEG takes 1.2 GB before it finds that there are none.
    """
    need_decoder(JPEG2000Lossless)
    utils = pytest.importorskip("openjpeg.utils")
    data = bytearray(utils.encode_array(head(SIDE).astype(np.int16), photometric_interpretation=2))
    at = data.index(b"\xff\x51") + 6
    sides = struct.pack(">II", 24_000, 24_000)
    data[at : at + 8] = data[at + 16 : at + 24] = sides  # of the image, of a tile
    header = replace(read_header(path), transfer_syntax=JPEG2000Lossless)
    decoders._get_process().close()
    for name in decoders.list_available(JPEG2000Lossless):
        with pytest.raises(Refused, match="cannot be decoded"):
            decoders.decode(Stream(bytes(data), 16, True), header, name)
        if decoders._get_process().child is not None:  # else the limit ended it
            assert peak("VmHWM") < 200 << 20  # with the libraries' own pages, some 80 MiB
    read_image(path)


def test_small_frames_one_after_another(path: Path) -> None:
    """What one leaves behind does not count against the next."""
    header = replace(read_header(path), rows=4096, columns=4096)
    plane = 2**17 * b"\x81\0"  # runs of 128
    stream = Stream(struct.pack("<16I", 2, 64, 64 + len(plane), *13 * [0]) + 2 * plane, 16)
    for _ in range(2):
        decoders.decode(stream, header, "pydicom")
        read_image(path)


def test_the_memory_is_what_the_limit_says(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoders._get_process().close()
    header = replace(read_header(path), rows=4096, columns=4096, bits_allocated=32, bits_stored=32)
    plane = 2**17 * b"\x81\0"  # runs of 128
    offsets = [64 + k * len(plane) for k in range(4)]
    stream = Stream(struct.pack("<16I", 4, *offsets, *11 * [0]) + 4 * plane, 32)
    with monkeypatch.context() as patch:
        patch.setattr(decoder_process, "MEMORY", 200 << 20)
        with pytest.raises(Refused, match="cannot be decoded"):
            decoders.decode(stream, header, "pydicom")
    decoders._get_process().close()
    assert not decoders.decode(stream, header, "pydicom").any()


ENDLESS = 1 << 40  # bytes; torch's libraries alone reserve some gigabytes of addresses


@pytest.mark.parametrize(
    ("kind", "title", "most", "expected"),
    [
        ("DATA", "Max data size", decoder_process.MEMORY - 1, decoder_process.MEMORY - 1),
        ("DATA", "Max data size", decoder_process.MEMORY + 1, decoder_process.MEMORY),
        ("AS", "Max address space", ENDLESS, ENDLESS),  # lower for the frame alone
    ],
)
def test_a_user_s_own_limit_is_not_raised(
    path: Path, kind: str, title: str, most: int, expected: int
) -> None:
    """As of `ulimit -d` and `-v`: to raise it is not allowed."""
    limits = "/proc/{decoders._get_process().child.pid}/limits"
    act = f"import resource; resource.setrlimit(resource.RLIMIT_{kind}, ({most}, {most})); "
    act += f"read_image(Path({str(path)!r})); print(Path(f{limits!r}).read_text())"
    out, _ = start_parent(path, act, "", 20).communicate()
    (line,) = (line for line in out.decode().splitlines() if line.startswith(title))
    assert line.split()[3] == str(expected)


# What becomes of it


def test_ctrl_c_leaves_no_answer_for_the_next_frame(path: Path, use_worker: Any) -> None:
    """The first request of all is answered late, with sevens; all others are not."""
    late = GOOD + 2 * SIDE * SIDE * b"\7"
    note = path.with_name("note")
    use_worker(
        f"{HEAD}{LOOP}    first = not os.path.exists({str(note)!r})\n"
        f"    open({str(note)!r}, 'w').close()\n"
        f"    time.sleep(1.0 * first)\n"
        f"    pipe.send_bytes({late!r} if first else {GOOD!r} + bytes({2 * SIDE * SIDE}))"
    )

    def interrupt() -> None:
        while not note.exists():
            time.sleep(0.005)
        os.kill(os.getpid(), signal.SIGINT)

    # A shell's background jobs start with Ctrl-C ignored, and Python then leaves it so.
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    thread = Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            read_image(path)
    finally:
        thread.join()
        signal.signal(signal.SIGINT, former)
    assert not read_image(path).stored.any()


def test_one_that_was_killed_is_replaced(path: Path, head: Any) -> None:
    read_image(path)
    former = child()
    former.kill()
    np.testing.assert_array_equal(read_image(path).stored, head(SIDE) + 1024)
    assert child().pid != former.pid


def test_one_that_dies_over_a_frame_is_asked_once_more(path: Path, use_worker: Any) -> None:
    """Where it may have been killed before the frame came, and only there."""
    log = path.with_name("log")
    note = f"    open({str(log)!r}, 'a').write('x')\n"
    use_worker(f"{HEAD}{LOOP}{note}    os.abort()")
    with pytest.raises(Refused, match="the decoder crashed"):
        read_image(path)
    assert log.read_text() == "x"
    answer = GOOD + bytes(2 * SIDE * SIDE)
    use_worker(
        f"{HEAD}n = 0\n{LOOP}{note}    n += 1\n    n > 1 and os.abort()\n"
        f"    pipe.send_bytes({answer!r})"
    )
    for _ in range(2):  # the second kills the first process, and is answered by the next
        assert not read_image(path).stored.any()
    assert log.read_text() == "x" + "xxx"


PARENT = """
import os, sys
from pathlib import Path
from ichfast.data import decoder_process, decoders
from ichfast.data.dicom import read_image
decoder_process.LIMIT_S = {limit}
decoder_process.WORKER = {worker!r} or decoder_process.WORKER
try:
    {act}
except KeyboardInterrupt:
    pass
"""


def start_parent(path: Path, act: str, worker: str, limit: float) -> "subprocess.Popen[bytes]":
    text = PARENT.format(limit=limit, worker=worker, act=act)
    return subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE)


def test_an_idle_one_ends_with_its_parent(path: Path) -> None:
    act = f"read_image(Path({str(path)!r})); print(decoders._get_process().child.pid, flush=True); "
    parent = start_parent(path, f"{act}import time; time.sleep(60)", "", 20)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert is_running(pid)
    parent.kill()
    parent.communicate()
    wait_for_end(pid)


def test_a_busy_one_ends_soon_after_its_parent(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where native code never gives the interpreter a turn."""
    call = "    pixels, _ = get_decoder"
    busy = "    print(os.getpid(), file=open(os.environ['BUSY'], 'w'), flush=True)\n"
    busy += "    import ctypes; ctypes.PyDLL(None).sleep(600)\n"
    script, note = tmp_path / "worker.py", tmp_path / "pid"
    script.write_text(WORKER.replace(call, busy + call))
    monkeypatch.setenv("BUSY", str(note))
    parent = start_parent(path, f"read_image(Path({str(path)!r}))", str(script), 3)
    while not (note.exists() and note.read_text().endswith("\n")):
        assert parent.poll() is None
        time.sleep(0.01)
    pid = int(note.read_text())
    parent.send_signal(signal.SIGKILL)
    parent.communicate()
    wait_for_end(pid)


def test_it_loads_neither_ichfast_nor_torch() -> None:
    text = f"import runpy, sys; runpy.run_path({decode_worker.__file__!r}); print(*sys.modules)"
    out = subprocess.run([sys.executable, "-P", "-c", text], capture_output=True, check=True)
    loaded = out.stdout.decode().split()
    assert "pydicom" in loaded
    assert not {name for name in loaded if name.partition(".")[0] in ("ichfast", "torch")}
