"""ichfast.ops.tversky_bce against its plain form, and what is its own."""

from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
import torch
from comparison import assert_close, assert_same_bits
from harness import FLOATING, LAYOUTS, TRANSFORMS, Call, GradientTester, check_transform
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from ichfast import ops
from ichfast.ops import reference

OPTIONS: list[dict[str, Any]] = [
    {},
    {"alpha": 1.0, "beta": 1.0},
    {"alpha": 0.3, "beta": 0.7, "batch": True},
    {"smooth_nr": 1.0, "smooth_dr": 2.0},
    {"smooth_nr": 0.0, "smooth_dr": 0.0, "batch": True},
]
TARGETS = [torch.bool, torch.uint8, *FLOATING]
# Which of the arguments that may be None are given, and of how many channels the mask is.
ARGUMENTS: list[dict[str, Any]] = [
    {"mask": 0},
    {"mask": 1},
    {"mask": 2},
    {"mask": 0, "weigh": True},
    {"mask": 1, "weigh": True},
]


def join(op: Callable[..., tuple[Tensor, Tensor, Tensor]]) -> Callable[..., Tensor]:
    """The three results as the testers take them: one, of numbers of the same size."""

    def tversky_bce(logits: Tensor, target: Tensor, *args: Tensor, **options: Any) -> Tensor:
        tversky, cross_entropy, count = op(logits, target, *args, **options)
        voxels = max(logits[0, 0].numel(), 1) if logits.shape[0] * logits.shape[1] else 1
        return torch.cat([tversky, cross_entropy / voxels, count / voxels], -1)

    return tversky_bce


OP, REFERENCE = join(ops.tversky_bce), join(reference.tversky_bce)


class TestTverskyBCE(GradientTester):
    def make(
        self,
        device: torch.device,
        *,
        spatial: tuple[int, ...] = (37, 41),
        images: int = 3,
        dtype: torch.dtype = torch.float32,
        channels: int = 2,
        mask: int = 1,
        weigh: bool = False,
        **options: Any,
    ) -> Call:
        generator = torch.Generator().manual_seed(5)
        shape = (images, channels, *spatial)
        tensors = {
            "logits": 8 * torch.rand(shape, generator=generator) - 5,
            "target": (torch.rand(shape, generator=generator) < 0.3).float(),
        }
        if mask:
            of_mask = (images, mask, *spatial)
            tensors["mask"] = torch.rand(of_mask, generator=generator).mul(4).round().div(4)
        if weigh:
            tensors["pos_weight"] = torch.tensor([0.5, 3.0, 1.25])[:channels]
        tensors = {name: tensor.to(device, dtype) for name, tensor in tensors.items()}
        return Call(OP, REFERENCE, tensors, options, wrt=("logits",))

    def raw(self, call: Call) -> Iterator[tuple[Any, tuple[Any, ...]]]:
        z, t, w = call.tensors.values()
        q = torch.tensor([0.5, 3.0], device=z.device)
        for mask, pos_weight, batch in ((None, None, True), (w.expand_as(z), q, False)):
            options = (0.3, 0.7, 1e-5, 1e-5, batch)
            arguments = (z, t, mask, pos_weight)
            yield torch.ops.ichfast.tversky_bce.default, (*arguments, *options)
            loss, _, _, sums = torch.ops.ichfast.tversky_bce(*arguments, *options)
            grads = (torch.ones_like(loss), 2 * torch.ones_like(loss))
            backward = torch.ops.ichfast.tversky_bce_backward.default
            yield backward, (*grads, *arguments, sums, *options)

    @pytest.mark.parametrize("options", OPTIONS, ids=str)
    @pytest.mark.parametrize("arguments", ARGUMENTS, ids=str)
    def test_options(
        self, device: torch.device, arguments: dict[str, Any], options: dict[str, Any]
    ) -> None:
        self.make(device, **arguments, **options).check()

    @pytest.mark.parametrize("transform", TRANSFORMS)
    @pytest.mark.parametrize("mask", [0, 2])
    def test_transform_of_a_batch(self, device: torch.device, mask: int, transform: str) -> None:
        """Its sums over images are those of a sample, not of all samples."""
        call = self.make(
            device, dtype=torch.float64, spatial=(2, 3), images=2, batch=True, mask=mask, weigh=True
        )
        check_transform(call, transform)

    @pytest.mark.parametrize("transform", TRANSFORMS)
    def test_transform_with_pos_weight(self, device: torch.device, transform: str) -> None:
        """Shared by all samples, or each with its own."""
        call = self.make(device, dtype=torch.float64, spatial=(2, 3), images=2, mask=2, weigh=True)
        check_transform(call, transform)

    def test_samples_share_pos_weight(self, device: torch.device) -> None:
        call = self.make(device, spatial=(5, 6), weigh=True)
        z, t, _, q = call.tensors.values()
        shared = torch.func.vmap(lambda z, t: ops.tversky_bce(z[None], t[None], None, q))(z, t)
        for joined, each in zip(shared, ops.tversky_bce(z, t, None, q), strict=True):
            assert_same_bits([joined[:, 0]], [each])

    @pytest.mark.parametrize("result", [0, 1])
    def test_gradient_of_one_result(self, device: torch.device, result: int) -> None:
        call = self.make(device)
        gradients = []
        for op in (ops.tversky_bce, reference.tversky_bce):
            leaf = call.tensors["logits"].double().requires_grad_()
            others = (call.tensors["target"], call.tensors["mask"])
            gradients += torch.autograd.grad(op(leaf, *others)[result].square().sum(), leaf)
        assert_close(gradients[0], gradients[1])

    @pytest.mark.parametrize("channels", [0, 1, 3])
    def test_channels(self, device: torch.device, channels: int) -> None:
        self.make(device, channels=channels, weigh=True).check()

    @pytest.mark.parametrize("dtype", FLOATING, ids=str)
    @pytest.mark.parametrize("target", TARGETS, ids=str)
    @pytest.mark.parametrize("mask", [None, *TARGETS], ids=str)
    def test_dtypes_of_target_and_mask(
        self,
        device: torch.device,
        dtype: torch.dtype,
        target: torch.dtype,
        mask: torch.dtype | None,
    ) -> None:
        call = self.make(device, dtype=dtype, spatial=(11, 13), mask=int(mask is not None))
        changed = {"target": call.tensors["target"].to(target)}
        if mask is not None:
            weights = call.tensors["mask"]
            changed["mask"] = (weights if mask.is_floating_point else weights > 0.3).to(mask)
        call.replace(**changed).check()

    def test_bytes_are_counted_unless_zero(self, device: torch.device) -> None:
        """255 is a usual "true" of masks, and a bool made elsewhere may hold it, too."""
        call = self.make(device)
        mask = call.tensors["mask"] > 0.3
        expected = call.replace(mask=mask).run()
        ones, many = mask.to(torch.uint8), 255 * mask.to(torch.uint8)
        for same in (ones, many, many.view(torch.bool)):
            assert_same_bits(call.replace(mask=same).run(), expected)
        assert_same_bits(
            [REFERENCE(**call.replace(mask=many).tensors)],
            [REFERENCE(**call.replace(mask=mask).tensors)],
        )

    @pytest.mark.parametrize("dtype", FLOATING, ids=str)
    def test_all_ones_is_no_mask(self, device: torch.device, dtype: torch.dtype) -> None:
        call = self.make(device, dtype=dtype, weigh=True, mask=0)
        ones = torch.ones_like(call.tensors["logits"][:, :1])
        assert_same_bits(call.replace(mask=ones.bool()).run(), call.run())
        # A mask of a half type goes, on a GPU, through a kernel whose exponential is finer.
        call.replace(mask=ones).check()

    @pytest.mark.parametrize("dtype", FLOATING, ids=str)
    @pytest.mark.parametrize("mask", [1, 2])
    def test_what_is_masked_changes_no_bit(
        self, device: torch.device, dtype: torch.dtype, mask: int
    ) -> None:
        call = self.make(device, dtype=dtype, mask=mask)
        z, t, w = call.tensors.values()
        ignored = (w == 0).expand_as(z)
        assert 0.05 < ignored.double().mean() < 0.95
        expected = call.run()
        largest = torch.finfo(dtype).max
        for logit, label in ((largest, 1), (-largest, largest), (0, -largest)):
            changed = call.replace(
                logits=z.masked_fill(ignored, logit), target=t.masked_fill(ignored, label)
            )
            results = changed.run()
            assert_same_bits(results, expected)
            assert results[1][ignored].count_nonzero() == 0

    @pytest.mark.parametrize("batch", [False, True])
    def test_nothing_is_counted(self, device: torch.device, batch: bool) -> None:
        """In one image, or in all: overlap 0/0 smoothed, cross-entropy, count and gradient 0."""
        call = self.make(device, batch=batch)
        w = call.tensors["mask"].clone()
        w[1] = 0
        one = call.replace(mask=w)
        one.check()
        assert one.run()[1][1].count_nonzero() == 0
        value, gradient = call.replace(mask=torch.zeros_like(w)).run()
        assert value.count_nonzero() == gradient.count_nonzero() == 0

    @pytest.mark.parametrize("dtype", FLOATING, ids=str)
    @pytest.mark.parametrize("logit", [100.0, 1e4])
    def test_saturated(self, device: torch.device, dtype: torch.dtype, logit: float) -> None:
        """Half of the voxels wrong: the limits, in closed form."""
        z = torch.tensor([logit, -logit, -logit, logit], device=device, dtype=dtype).view(1, 1, 4)
        z.requires_grad_()
        t = torch.tensor([1.0, 0, 1, 0], device=device).view(1, 1, 4)
        q = torch.tensor([3.0], device=device)
        tversky, cross_entropy, count = ops.tversky_bce(z, t, None, q, smooth_nr=0, smooth_dr=0)
        wrong = z.detach().abs().max().item()
        assert (tversky.item(), count.item()) == (0.5, 4)
        assert cross_entropy.item() == pytest.approx(3 * wrong + wrong)
        (tversky + cross_entropy).sum().backward()
        assert z.grad is not None
        assert z.grad.flatten().tolist() == pytest.approx([0, 0, -3, 1], rel=1e-6, abs=1e-30)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
    def test_well_classified(self, device: torch.device, dtype: torch.dtype) -> None:
        """Far from the boundary e^−|z| is what remains, and keeps all its digits."""
        z = torch.tensor([[[30.0, -30.0]]], device=device, dtype=dtype, requires_grad=True)
        t = torch.tensor([[[1.0, 0.0]]], device=device)
        _, cross_entropy, _ = ops.tversky_bce(z, t)
        tiny = torch.tensor(-30.0, dtype=torch.float64).exp().item()
        assert cross_entropy.item() == pytest.approx(2 * tiny)
        cross_entropy.sum().backward()
        assert z.grad is not None
        assert z.grad.flatten().tolist() == pytest.approx([-tiny, tiny])

    def test_each_part_alone(self, device: torch.device) -> None:
        """Its gradient is its own, and the count has none."""
        call = self.make(device)

        def gradient(part: int, op: Any, tensors: dict[str, Tensor]) -> Tensor:
            leaves = {**tensors, "logits": tensors["logits"].detach().requires_grad_()}
            (result,) = torch.autograd.grad(op(**leaves)[part].sum(), leaves["logits"])
            return result

        exact = {name: tensor.cpu().double() for name, tensor in call.tensors.items()}
        for part in (0, 1):
            actual = gradient(part, ops.tversky_bce, call.tensors)
            assert_close(actual, gradient(part, reference.tversky_bce, exact))
        logits = call.tensors["logits"].requires_grad_()
        assert not ops.tversky_bce(logits, call.tensors["target"])[2].requires_grad

    def test_same_overlap_as_tversky(self, device: torch.device) -> None:
        z, t = list(self.make(device).tensors.values())[:2]
        for batch in (False, True):
            options = {"alpha": 0.3, "beta": 0.7, "batch": batch}
            expected = ops.tversky(z.double(), t, sigmoid=True, **options)
            assert_close(ops.tversky_bce(z, t, **options)[0], expected)

    def test_same_cross_entropy_as_torch(self, device: torch.device) -> None:
        z, t, w, q = self.make(device, weigh=True).tensors.values()
        _, cross_entropy, count = ops.tversky_bce(z, t, w, q)
        z, t, w, q = z.double(), t.double(), w.double(), q.double().view(-1, 1, 1)
        each = binary_cross_entropy_with_logits(z, t, w, reduction="none", pos_weight=q)
        assert_close(cross_entropy, each.sum((2, 3)))
        assert_close(count, w.expand_as(z).sum((2, 3)))

    @given(
        st.integers(0, 3),
        st.integers(1, 3),
        st.tuples(st.integers(1, 40), st.integers(1, 60)),
        st.sampled_from(FLOATING),
        st.sampled_from(TARGETS),
        st.sampled_from([None, *TARGETS]),
        st.sampled_from([{}, {"weigh": True}, {"batch": True}, {"weigh": True, "batch": True}]),
        st.lists(st.sampled_from(list(LAYOUTS)), min_size=3, max_size=3),
        st.booleans(),
    )
    def test_any_arguments(
        self,
        images: int,
        channels: int,
        spatial: tuple[int, int],
        dtype: torch.dtype,
        target: torch.dtype,
        mask: torch.dtype | None,
        options: dict[str, Any],
        layouts: list[str],
        mask_per_channel: bool,
    ) -> None:
        of_mask = 0 if mask is None else channels if mask_per_channel else 1
        call = self.make(
            torch.device("cpu"),
            images=images,
            channels=channels,
            spatial=spatial,
            dtype=dtype,
            mask=of_mask,
            **options,
        )
        dtypes = {"logits": dtype, "target": target, "mask": mask}
        changed = {
            name: LAYOUTS[layout](call.tensors[name].to(dtypes[name]))
            for name, layout in zip(dtypes, layouts, strict=True)
            if name in call.tensors
        }
        call.replace(**changed).check()


Z, T = torch.rand(2, 3, 8, 8), torch.zeros(2, 3, 8, 8)
W, Q = torch.ones(2, 1, 8, 8), torch.ones(3)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((Z.numpy(), T), TypeError, "logits must be a torch.Tensor, not ndarray"),
        ((Z.int(), T), TypeError, r"logits must be float64.* not torch.int32"),
        ((Z, T.long()), TypeError, "target must be bool, uint8 or floating, not torch.int64"),
        ((Z, T[:1]), ValueError, r"logits and target .* not \(2, 3, 8, 8\) and \(1, 3, 8, 8\)"),
        ((Z[:, 0, 0], T[:, 0, 0]), ValueError, r"must be \(B, C, \*spatial\)"),
        ((Z, T.to("meta")), ValueError, "target is on meta but logits is on cpu"),
        ((Z, T.clone().requires_grad_()), ValueError, "no gradient for target; pass target.detach"),
        ((Z, T, W.long()), TypeError, "mask must be bool, uint8 or floating, not torch.int64"),
        ((Z, T, [W]), TypeError, "mask must be a torch.Tensor, not list"),
        ((Z, T, W[:, 0]), ValueError, r"mask must be .* one channel, not \(2, 8, 8\)"),
        ((Z, T, W[:1]), ValueError, r"mask must be .* one channel, not \(1, 1, 8, 8\)"),
        ((Z, T, T[:, :2]), ValueError, r"mask must be .* one channel, not \(2, 2, 8, 8\)"),
        ((Z, T, W.to("meta")), ValueError, "mask is on meta but logits is on cpu"),
        ((Z, T, W.clone().requires_grad_()), ValueError, "no gradient for mask"),
        ((Z, T, W, [1.0]), TypeError, "pos_weight must be a torch.Tensor, not list"),
        ((Z, T, W, Q.long()), TypeError, "pos_weight must be float64"),
        ((Z, T, W, Q[:1]), ValueError, r"pos_weight must be \(3,\), .* not \(1,\)"),
        ((Z, T, None, Q.to("meta")), ValueError, "pos_weight is on meta but logits is on cpu"),
        ((Z, T, None, Q.clone().requires_grad_()), ValueError, "no gradient for pos_weight"),
    ],
)
def test_bad_arguments(arguments: tuple[Any, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^tversky_bce: .*{message}"):
        ops.tversky_bce(*arguments)


def test_a_group_needs_batch() -> None:
    with pytest.raises(ValueError, match=r"^tversky_bce: .* needs batch=True"):
        ops.tversky_bce(Z, T, group=cast(Any, object()))
