"""ichfast.ops.tversky against its plain form, and what is its own."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from comparison import assert_close
from harness import TRANSFORMS, Call, GradientTester, check_transform

from ichfast.ops import reference, tversky

OPTIONS = [
    {},
    {"alpha": 1.0, "beta": 1.0},
    {"alpha": 0.3, "beta": 0.7},
    {"alpha": 0.0, "beta": 1.0, "batch": True},
    {"sigmoid": True},
    {"sigmoid": True, "batch": True, "smooth_nr": 1.0, "smooth_dr": 2.0},
    {"smooth_nr": 0.0, "smooth_dr": 0.0},
]


class TestTversky(GradientTester):
    saturating = ("prediction",)

    def make(
        self,
        device: torch.device,
        *,
        spatial: tuple[int, ...] = (37, 41),
        images: int = 3,
        dtype: torch.dtype = torch.float32,
        channels: int = 2,
        **options: Any,
    ) -> Call:
        generator = torch.Generator().manual_seed(3)
        shape = (images, channels, *spatial)
        prediction = torch.rand(shape, generator=generator)
        target = torch.rand(shape, generator=generator) < 0.3
        options = {"sigmoid": True, **options}
        if options["sigmoid"]:
            prediction = 8 * prediction - 5
        tensors = {"prediction": prediction.to(device, dtype), "target": target.to(device, dtype)}
        return Call(tversky, reference.tversky, tensors, options, wrt=("prediction",))

    def raw(self, call: Call) -> Iterator[tuple[Any, tuple[Any, ...]]]:
        p, t = call.tensors.values()
        for sigmoid, batch in ((True, False), (False, True)):
            options = (0.3, 0.7, 1e-5, 1e-5, sigmoid, batch)
            yield torch.ops.ichfast.tversky.default, (p, t, *options)
            loss, sums = torch.ops.ichfast.tversky(p, t, *options)
            backward = torch.ops.ichfast.tversky_backward.default
            yield backward, (torch.ones_like(loss), p, t, sums, *options)

    @pytest.mark.parametrize("options", OPTIONS, ids=str)
    def test_options(self, device: torch.device, options: dict[str, Any]) -> None:
        self.make(device, **{"sigmoid": False, **options}).check()

    @pytest.mark.parametrize("transform", TRANSFORMS)
    def test_transform_of_a_batch(self, device: torch.device, transform: str) -> None:
        """Its sums over images are those of a sample, not of all samples."""
        call = self.make(device, dtype=torch.float64, spatial=(2, 3), images=2, batch=True)
        check_transform(call, transform)

    @pytest.mark.parametrize("channels", [0, 1, 5])
    def test_channels(self, device: torch.device, channels: int) -> None:
        self.make(device, channels=channels).check()

    @pytest.mark.parametrize(
        "dtype", [torch.bool, torch.uint8, torch.float16, torch.bfloat16, torch.float64], ids=str
    )
    def test_target_dtype(self, device: torch.device, dtype: torch.dtype) -> None:
        call = self.make(device)
        call.replace(target=call.tensors["target"].to(dtype)).check()

    @pytest.mark.parametrize("batch", [False, True])
    def test_soft_target(self, device: torch.device, batch: bool) -> None:
        call = self.make(device, batch=batch)
        call.replace(target=torch.rand_like(call.tensors["target"])).check()

    def test_bool_of_any_byte(self, device: torch.device) -> None:
        """A bool made elsewhere may hold another byte than 0 and 1."""
        call = self.make(device)
        target = (call.tensors["target"] * 255).to(torch.uint8).view(torch.bool)
        assert torch.equal(call.replace(target=target).run()[0], call.run()[0])

    def test_without_foreground(self, device: torch.device) -> None:
        """An image without blood still punishes what is predicted in it."""
        call = self.make(device, smooth_nr=0.0, sigmoid=False)
        call = call.replace(target=torch.zeros_like(call.tensors["target"]))
        call.check()
        assert (call.run()[0] == 1).all()

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
    def test_half_does_not_overflow(self, device: torch.device, dtype: torch.dtype) -> None:
        n = 200_003  # three times float16's largest number
        ones = torch.ones(1, 1, n, dtype=dtype, device=device)
        loss = tversky(ones, ones)
        assert loss.item() == 0
        assert tversky(ones, torch.zeros_like(ones)).item() == pytest.approx(1)

    def test_many_voxels(self, device: torch.device) -> None:
        """Past 2^24, where float32 stops counting."""
        n = 2**24 + 4097
        p = torch.rand(1, 1, n, device=device)
        t = (torch.rand(1, 1, n, device=device) < 0.6).to(torch.uint8)
        tp = sum(
            (a * b).sum(dtype=torch.float64)
            for a, b in zip(p.split(2**20, 2), t.split(2**20, 2), strict=True)
        )
        sums = p.sum(dtype=torch.float64) + t.sum(dtype=torch.float64)
        expected = 1 - (tp + 1e-5) / (sums - tp + 1e-5)
        loss = tversky(p, t, alpha=1.0, beta=1.0)
        assert_close(loss, expected.view(1, 1))

    def test_far_apart_in_memory(self) -> None:
        """Element offsets past 2^31 (pages that nobody touches take no memory)."""
        target = torch.empty(2**31 + 4096, dtype=torch.uint8).as_strided(
            (2, 1, 60, 60), (2**31, 1, 60, 1)
        )
        target.copy_(torch.arange(60).view(60, 1) < 30)
        prediction = torch.rand(1, 1, 60, 60).expand(2, 1, 60, 60)
        expected = tversky(prediction, target.contiguous())
        assert torch.equal(tversky(prediction, target), expected)

    @pytest.mark.large
    def test_more_voxels_than_int32(self, device: torch.device) -> None:
        shape = (1, 1, 2**16 + 1, 2**15)
        prediction = torch.full((), 0.25, device=device).expand(shape)
        target = torch.ones((), dtype=torch.bool, device=device).expand(shape)
        assert tversky(prediction, target, alpha=1.0, beta=1.0).item() == pytest.approx(
            0.75, rel=1e-6
        )


P, T = torch.rand(2, 1, 8, 8), torch.zeros(2, 1, 8, 8)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((P.numpy(), T), TypeError, "prediction must be a torch.Tensor, not ndarray"),
        ((P, T.numpy()), TypeError, "target must be a torch.Tensor, not ndarray"),
        ((P.to_sparse(), T), TypeError, r"prediction must be a dense tensor.*to_dense\(\)"),
        ((P, T.to_mkldnn()), TypeError, r"target must be a dense tensor.*to_dense\(\)"),
        ((P.int(), T), TypeError, r"prediction must be float64.* not torch.int32"),
        ((P, T.long()), TypeError, "target must be bool, uint8 or floating, not torch.int64"),
        ((P, T.to(torch.complex64)), TypeError, "target must be bool, uint8 or floating"),
        ((P, T.to(torch.float8_e4m3fn)), TypeError, "target must be bool, uint8 or floating"),
        ((P, T[:1]), ValueError, r"prediction and target .* not \(2, 1, 8, 8\) and \(1, 1, 8, 8\)"),
        ((P[:, 0, 0], T[:, 0, 0]), ValueError, r"must be \(B, C, \*spatial\)"),
        ((P, T.to("meta")), ValueError, "target is on meta but prediction is on cpu"),
        ((P, T.clone().requires_grad_()), ValueError, "no gradient for target; pass target.detach"),
    ],
)
def test_bad_arguments(arguments: tuple[Any, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^tversky: .*{message}"):
        tversky(*arguments)
