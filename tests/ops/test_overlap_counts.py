"""ichfast.ops.overlap_counts against its plain form, and what is its own."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from harness import FLOATING, SPATIAL, Call, OpTester

from ichfast.ops import overlap_counts, reference


class TestOverlapCounts(OpTester):
    def make(
        self,
        device: torch.device,
        *,
        spatial: tuple[int, ...] = (37, 41),
        images: int = 3,
        dtype: torch.dtype = torch.float32,
        **options: Any,
    ) -> Call:
        generator = torch.Generator().manual_seed(6)
        prediction = torch.rand((images, 2, *spatial), generator=generator)
        target = torch.rand((images, 2, *spatial), generator=generator) < 0.3
        tensors = {"prediction": prediction.to(device, dtype), "target": target.to(device, dtype)}
        return Call(overlap_counts, reference.overlap_counts, tensors, options)

    def raw(self, call: Call) -> Iterator[tuple[Any, tuple[Any, ...]]]:
        yield torch.ops.ichfast.overlap_counts.default, (*call.tensors.values(), 0.5)

    def check(self, call: Call) -> None:
        (counts,), (expected,) = call.run(), call.expected()
        assert counts.dtype == torch.int64
        assert torch.equal(counts.cpu(), expected)

    @pytest.mark.parametrize("spatial", SPATIAL, ids=str)
    def test_sizes(self, device: torch.device, spatial: tuple[int, ...]) -> None:
        self.check(self.make(device, spatial=spatial))

    @pytest.mark.parametrize("images", [0, 1, 5])
    def test_batch(self, device: torch.device, images: int) -> None:
        self.check(self.make(device, images=images))

    @pytest.mark.parametrize("dtype", FLOATING, ids=str)
    @pytest.mark.parametrize("target_dtype", [torch.bool, torch.uint8, *FLOATING], ids=str)
    def test_dtypes(
        self, device: torch.device, dtype: torch.dtype, target_dtype: torch.dtype
    ) -> None:
        call = self.make(device, dtype=dtype)
        self.check(call.replace(target=call.tensors["target"].to(target_dtype)))

    @pytest.mark.parametrize("threshold", [0.0, 0.25, 1.0, -1.0, float("inf")])
    def test_threshold(self, device: torch.device, threshold: float) -> None:
        """Exceeds, not reaches: 0.25 stands among the values."""
        call = self.make(device, threshold=threshold)
        call.tensors["prediction"][:, :, ::3] = 0.25
        self.check(call)

    def test_not_a_number(self, device: torch.device) -> None:
        call = self.make(device, spatial=(2051,))
        for name, tensor in call.tensors.items():
            for position in (0, 1023, 1024, 2050):
                spoiled = tensor.clone()
                spoiled[1, 0, position] = float("nan")
                counts, clean = call.replace(**{name: spoiled}).run()[0], call.run()[0]
                assert (counts[1, 0] == -1).all()
                counts[1, 0] = clean[1, 0]
                assert torch.equal(counts, clean)

    @pytest.mark.parametrize("value", [float("inf"), float("-inf")])
    def test_infinite(self, device: torch.device, value: float) -> None:
        call = self.make(device)
        for tensor in call.tensors.values():
            tensor[..., -1] = value
        self.check(call)

    def test_a_prediction_with_a_graph(self, device: torch.device) -> None:
        call = self.make(device)
        prediction, target = call.tensors.values()
        counts = overlap_counts(prediction.clone().requires_grad_(), target)
        assert not counts.requires_grad

    @pytest.mark.large
    def test_more_voxels_than_int32(self, device: torch.device) -> None:
        shape = (1, 1, 2**16 + 1, 2**15)
        prediction = torch.ones((), device=device).expand(shape)
        target = torch.zeros((), dtype=torch.bool, device=device).expand(shape)
        assert overlap_counts(prediction, target).tolist() == [[[0, 2**31 + 2**15, 0]]]


P, T = torch.rand(2, 1, 8, 8), torch.zeros(2, 1, 8, 8)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((P.numpy(), T), TypeError, "prediction must be a torch.Tensor, not ndarray"),
        ((P, T.numpy()), TypeError, "target must be a torch.Tensor, not ndarray"),
        ((P.to_sparse(), T), TypeError, r"prediction must be a dense tensor.*to_dense\(\)"),
        ((P, T.to_mkldnn()), TypeError, r"target must be a dense tensor.*to_dense\(\)"),
        ((P.bool(), T), TypeError, r"prediction must be float64.* not torch.bool"),
        ((P, T.int()), TypeError, "target must be bool, uint8 or floating, not torch.int32"),
        ((P, T.to(torch.float8_e5m2)), TypeError, "target must be bool, uint8 or floating"),
        ((P, T[:, :, :7]), ValueError, r"prediction and target .* and \(2, 1, 7, 8\)"),
        ((P[:, 0, 0], T[:, 0, 0]), ValueError, r"must be \(B, C, \*spatial\)"),
        ((P, T.to("meta")), ValueError, "target is on meta but prediction is on cpu"),
    ],
)
def test_bad_arguments(arguments: tuple[Any, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^overlap_counts: .*{message}"):
        overlap_counts(*arguments)
