"""Arrays of NumPy and CuPy in place of tensors: ichfast.ops._arrays, by way of ct_window."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch._subclasses import FakeTensorMode

from ichfast.ops import ct_window

Array = NDArray[Any]
DTYPES = ["uint8", "int8", "int16", "uint16", "int32", "int64", "float16", "float32", "float64"]


def values(dtype: str = "int16") -> Array:
    return (np.arange(2 * 6 * 8) % 97).astype(dtype).reshape(2, 6, 8)


REST: dict[str, Any] = {
    "slope": np.array([1.0, 1.1], np.float32),
    "intercept": np.array([0.0, -9.0], np.float32),
    "windows": np.array([(40, 80), (600, 2800)], np.float32),
    "size": (3, 4),
}


def of_tensors(stored: Array, **options: Any) -> Array:
    """The result by way of tensors, over copies of everything."""
    rest = {n: torch.tensor(x) if isinstance(x, np.ndarray) else x for n, x in REST.items()}
    native = stored.astype(stored.dtype.newbyteorder("="), order="C")
    return ct_window(torch.from_numpy(native), **rest, **options).numpy()


class Kernel:
    """Stands before the native op, and keeps what goes in and comes out."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.native = torch.ops.ichfast.ct_window
        monkeypatch.setattr(torch.ops.ichfast, "ct_window", self)

    def __call__(self, *arguments: Any) -> Tensor:
        self.arguments, self.result = arguments, self.native(*arguments)
        return self.result


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    return Kernel(monkeypatch)


def address(array: Array) -> int:
    return int(array.__array_interface__["data"][0])


@pytest.mark.parametrize("dtype", DTYPES)
def test_numpy_in_and_out_without_a_copy(kernel: Kernel, dtype: str) -> None:
    stored = values(dtype)
    images = ct_window(stored, **REST)
    assert type(images) is np.ndarray
    arrays = (stored, REST["slope"], REST["intercept"], REST["windows"])
    for tensor, array in zip(kernel.arguments, arrays, strict=False):
        assert tensor.data_ptr() == address(array)
    assert address(images) == kernel.result.data_ptr()
    np.testing.assert_array_equal(images, of_tensors(stored))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=str)
def test_dtype_of_the_result(dtype: torch.dtype) -> None:
    images = ct_window(values(), **REST, dtype=dtype)
    assert images.dtype == str(dtype).removeprefix("torch.")
    np.testing.assert_array_equal(images, of_tensors(values(), dtype=dtype))


@pytest.mark.parametrize(
    "relaid",
    [
        lambda x: x.transpose(0, 2, 1).copy().transpose(0, 2, 1),
        lambda x: np.repeat(x, 2, 2)[..., ::2],
        lambda x: np.pad(x, 3)[3:-3, 3:-3, 3:-3],
        lambda x: np.broadcast_to(x[:1, :1], x.shape),
        lambda x: x[:0],
    ],
    ids=["transposed", "every_other", "crop", "broadcast", "empty"],
)
def test_any_layout_without_a_copy(kernel: Kernel, relaid: Any) -> None:
    stored = relaid(values())
    rest = {**REST, "slope": REST["slope"][: len(stored)], "intercept": np.zeros(len(stored))}
    images = ct_window(stored, **rest)
    tensor = kernel.arguments[0]
    assert tensor.data_ptr() == address(stored) or stored.size == 0
    assert tuple(s * stored.itemsize for s in tensor.stride()) == stored.strides or not stored.size
    tensors = {n: torch.tensor(x) if isinstance(x, np.ndarray) else x for n, x in rest.items()}
    np.testing.assert_array_equal(images, ct_window(torch.tensor(stored), **tensors).numpy())


def test_read_only_memory(kernel: Kernel, tmp_path: Path) -> None:
    """Read where it lies, without torch's warning (told once a process: so in one of its own)."""
    np.save(tmp_path / "stored.npy", values())
    mapped = np.load(tmp_path / "stored.npy", mmap_mode="r")
    images = ct_window(mapped, **REST)
    assert type(images) is np.ndarray
    assert kernel.arguments[0].data_ptr() == address(mapped)
    np.testing.assert_array_equal(images, of_tensors(values()))
    code = (
        "import numpy as np; from ichfast.ops import ct_window; one = np.ones(1)\n"
        "stored = np.frombuffer(bytes(8), np.int16).reshape(1, 2, 2)\n"
        "assert not stored.flags.writeable\n"
        "ct_window(stored, one, one, np.array([[40., 80.]]), (1, 1))"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_result_outlives_its_tensor() -> None:
    images = ct_window(values(), **REST)
    expected = images.copy()
    for _ in range(20):
        ct_window(values() * 0, **REST)
    np.testing.assert_array_equal(images, expected)
    images += 1  # it is writable, and the caller's own


def test_stored_decides_what_comes_out() -> None:
    expected = of_tensors(values())
    tensors = {n: torch.tensor(x) if isinstance(x, np.ndarray) else x for n, x in REST.items()}
    images = ct_window(torch.from_numpy(values()), **REST)
    assert isinstance(images, Tensor)
    np.testing.assert_array_equal(images.numpy(), expected)
    np.testing.assert_array_equal(ct_window(values(), **tensors), expected)


@pytest.mark.parametrize(
    ("bad", "error", "message", "fix"),
    [
        ({"stored": values()[:, ::-1]}, ValueError, "stored has strides", "stored.copy()"),
        ({"stored": values()[::-1]}, ValueError, "strides of (-96, 16, 2) bytes", ".copy()"),
        ({"windows": REST["windows"][:, ::-1]}, ValueError, "windows has strides", "windows.copy"),
        (
            {"stored": np.zeros((2, 6, 8), "u1,i2")["f1"]},
            ValueError, "stored has strides", "stored.copy()",
        ),
        (
            {"stored": np.frombuffer(bytes(193), "i2", offset=1).reshape(2, 6, 8)},
            ValueError, "stored is not aligned", "stored.copy()",
        ),
        (
            {"stored": values(">i2")},
            ValueError, "dtype >i2", "stored.astype(stored.dtype.newbyteorder('='))",
        ),
        ({"stored": values("O")}, TypeError, "stored has dtype object", "stored.astype(...)"),
        ({"stored": values("g")}, TypeError, "stored has dtype float128", "stored.astype(...)"),
        ({"stored": np.zeros((2, 6, 8), "u1,i2")}, TypeError, "stored has dtype [", ".astype("),
        ({"stored": np.zeros((2, 6, 8), "V0")}, TypeError, "stored has dtype |V0", ".astype("),
        ({"slope": np.zeros(2, "M8[s]")}, TypeError, "slope has dtype datetime64[s]", ".astype("),
        (
            {"stored": np.ma.masked_greater(values(), 90)},
            TypeError, "stored is a masked array", "stored.filled(...)",
        ),
        ({"stored": values("?")}, TypeError, "stored must be integer or floating", "torch.bool"),
        ({"stored": values("u4")}, TypeError, "stored must be integer or floating", "uint32"),
        ({"slope": REST["slope"] + 0j}, TypeError, "slope must be real", "complex64"),
        ({"slope": [1.0, 1.1]}, TypeError, "slope must be a torch.Tensor or an array", "not list"),
        ({"slope": 1.0}, TypeError, "slope must be a torch.Tensor or an array", "not float"),
        ({"intercept": np.float32(1)}, TypeError, "intercept must be a torch.Tensor", "float32"),
        ({"stored": values()[0]}, ValueError, "stored must be (B, H, W)", "not (6, 8)"),
        ({"dtype": torch.bfloat16}, TypeError, "no array of numpy holds bfloat16", "torch.float16"),
        ({"dtype": np.float32}, TypeError, "dtype must be a floating one", "float32"),
    ],
    ids=lambda case: next(iter(case)) if isinstance(case, dict) else "",
)  # fmt: skip
def test_refused(bad: dict[str, Any], error: type[Exception], message: str, fix: str) -> None:
    with pytest.raises(error, match=f"ct_window: .*{re.escape(message)}.*{re.escape(fix)}"):
        ct_window(**{"stored": values(), **REST, **bad})


def test_refused_arrays_pass_once_fixed() -> None:
    """The fixes that the errors name are ones."""
    swapped = values(">i2")
    for stored in (
        values()[:, ::-1].copy(),
        np.zeros((2, 6, 8), "u1,i2")["f1"].copy(),
        np.frombuffer(bytes(193), "i2", offset=1).reshape(2, 6, 8).copy(),
        swapped.astype(swapped.dtype.newbyteorder("=")),
        np.ma.masked_greater(values(), 90).filled(-1000),
    ):
        np.testing.assert_array_equal(ct_window(stored, **REST), of_tensors(stored))


def test_numpy_beside_a_cuda_tensor_is_refused() -> None:
    with FakeTensorMode():
        stored = torch.empty(2, 6, 8, device="cuda")
    with pytest.raises(ValueError, match="slope is on cpu but stored is on cuda:0"):
        ct_window(stored, **REST)


@pytest.mark.gpu
class TestCuPy:
    """Needs CuPy and a GPU; ``-m gpu`` runs it."""

    @pytest.fixture
    def cupy(self) -> Any:
        cupy = pytest.importorskip("cupy")
        if not (torch.cuda.is_available() and cupy.cuda.is_available()):
            pytest.skip("no GPU")
        return cupy

    def rest(self, cupy: Any) -> dict[str, Any]:
        return {n: cupy.asarray(x) if isinstance(x, np.ndarray) else x for n, x in REST.items()}

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_in_and_out_without_a_copy(self, cupy: Any, kernel: Kernel, dtype: str) -> None:
        stored = cupy.asarray(values(dtype))
        rest = self.rest(cupy)
        images = ct_window(stored, **rest)
        assert isinstance(images, cupy.ndarray)
        assert images.data.ptr == kernel.result.data_ptr()
        arrays = (stored, rest["slope"], rest["intercept"], rest["windows"])
        for tensor, array in zip(kernel.arguments, arrays, strict=False):
            assert tensor.data_ptr() == array.data.ptr
        tensors = {
            n: torch.as_tensor(cupy.asnumpy(x)).cuda() for n, x in rest.items() if n != "size"
        }
        expected = ct_window(torch.from_numpy(values(dtype)).cuda(), **tensors, size=rest["size"])
        np.testing.assert_array_equal(cupy.asnumpy(images), expected.cpu().numpy())

    def test_streams_wait_for_each_other(self, cupy: Any) -> None:
        """A producer and a consumer on streams of CuPy's, the kernel on one of torch's."""
        rest = self.rest(cupy)
        ones, none = cupy.ones(64, cupy.float32), cupy.zeros(64, cupy.float32)
        rest.update(slope=ones, intercept=none, size=(512, 512))
        busy = torch.randn(4096, 4096, device="cuda")
        with cupy.cuda.Stream(non_blocking=True) as stream:
            for value in range(8):
                stored = cupy.zeros((64, 512, 512), cupy.int16)
                for _ in range(50):  # the kernel must wait for the last of these
                    stored += 1
                stored += value
                with torch.cuda.stream(torch.cuda.Stream()):
                    for _ in range(3):  # and the sum below for these
                        busy = busy @ busy * 1e-3
                    images = ct_window(stored, **rest)
                total = images[:, 0].sum(dtype=cupy.float64) / images[:, 0].size
                assert float(total) == pytest.approx((50 + value) / 79, rel=1e-5)
            stream.synchronize()

    def test_negative_strides_are_refused(self, cupy: Any) -> None:
        """torch.from_dlpack would end the process."""
        with pytest.raises(ValueError, match=r"pass stored.copy\(\)"):
            ct_window(cupy.asarray(values())[:, ::-1], **self.rest(cupy))

    def test_bfloat16(self, cupy: Any) -> None:
        with pytest.raises(TypeError, match="no array of cupy holds bfloat16"):
            ct_window(cupy.asarray(values()), **self.rest(cupy), dtype=torch.bfloat16)

    def test_numpy_beside_cupy_is_refused(self, cupy: Any) -> None:
        with pytest.raises(ValueError, match="slope is on cpu but stored is on cuda:0"):
            ct_window(cupy.asarray(values()), **REST)


class FakeCuPyArray:
    """What ct_window asks of a CuPy array, over NumPy memory: the same road without a GPU."""

    def __init__(self, array: Array) -> None:
        self.array = array
        self.dtype, self.strides, self.itemsize = array.dtype, array.strides, array.itemsize

    def __dlpack__(self, **options: Any) -> Any:
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self.array.__dlpack_device__()


def test_road_of_cupy(monkeypatch: pytest.MonkeyPatch, kernel: Kernel) -> None:
    class Library:
        ndarray = FakeCuPyArray

        @staticmethod
        def from_dlpack(tensor: Tensor) -> FakeCuPyArray:
            return FakeCuPyArray(np.from_dlpack(tensor))

    monkeypatch.setitem(sys.modules, "cupy", Library)
    stored = FakeCuPyArray(values("uint16"))
    images = ct_window(stored, **REST)
    assert isinstance(images, FakeCuPyArray)
    assert kernel.arguments[0].data_ptr() == address(stored.array)
    assert address(images.array) == kernel.result.data_ptr()
    np.testing.assert_array_equal(images.array, of_tensors(values("uint16")))
    with pytest.raises(ValueError, match=r"pass stored.copy\(\)"):
        ct_window(FakeCuPyArray(values()[:, ::-1]), **REST)
