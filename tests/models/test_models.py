"""The networks: shapes, shared paths, seeds, and what they refuse."""

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ichfast import models
from ichfast.errors import CheckpointError
from ichfast.losses import DiceLoss
from ichfast.models import MultiTaskUNet, ReducedUNet
from ichfast.models import norm as norm_module
from ichfast.models.compute import to_channels_last
from ichfast.models.norm import BatchNorm, _Concatenate, max_pool_deterministic, plain_modules

CHANNELS = (2, 3, 4)


def test_default_is_the_paper_s_size() -> None:
    assert ReducedUNet().channels == (64, 128, 256, 512)


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=4),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 2),
)
def test_shapes(channels: list[int], rows: int, columns: int, batch: int) -> None:
    model = MultiTaskUNet(channels)
    multiple = 2 ** (len(channels) - 1)
    # batch normalisation in training needs more than one value a channel at the deepest level
    image = torch.rand(batch, 1, 2 * rows * multiple, columns * multiple)
    logits, reconstruction = model(image)
    assert logits.shape == image.shape
    assert reconstruction.shape == (batch, 2, *image.shape[2:])
    assert model.segment(image).equal(logits)


def test_both_models_share_the_segmentation_path() -> None:
    unet, multitask = models.build("unet", CHANNELS, 7), models.build("multitask", CHANNELS, 7)
    image = torch.rand(2, 1, 8, 12)
    assert unet.segment(image).equal(multitask.segment(image))
    assert unet.state_dict().keys() < multitask.state_dict().keys()


def test_groups_are_a_partition_of_the_parameters() -> None:
    model = MultiTaskUNet(CHANNELS)
    groups = model.groups()
    assert list(groups) == ["encoder", "segmentation", "reconstruction"]
    assert [p for group in groups.values() for p in group] == list(model.parameters())


def test_the_reconstruction_has_no_skip_connections() -> None:
    model = models.build("multitask", (8, 8, 8), 0).eval()
    features = model.encoder(torch.rand(1, 1, 8, 8))
    blind = [torch.zeros_like(level) for level in features[:-1]] + features[-1:]
    assert model.reconstruction(blind).equal(model.reconstruction(features))
    assert not model.segmentation(blind).equal(model.segmentation(features))


def test_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = models.build("multitask", CHANNELS, 3)
    assert torch.get_rng_state().equal(before)
    torch.manual_seed(2)
    again, other = models.build("multitask", CHANNELS, 3), models.build("multitask", CHANNELS, 4)
    pairs = zip(first.parameters(), again.parameters(), strict=True)
    assert all(a.equal(b) for a, b in pairs)
    assert not next(first.parameters()).equal(next(other.parameters()))


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 2, 8, 8), (1, 1, 8), (8, 8)])
def test_wrong_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"\(B, 1, H, W\)"):
        MultiTaskUNet(CHANNELS)(torch.zeros(shape))


@pytest.mark.parametrize("side", [6, 9, 0])
def test_sides_that_the_pooling_does_not_divide(side: int) -> None:
    with pytest.raises(ValueError, match="multiples of 4"):
        ReducedUNet(CHANNELS)(torch.zeros(1, 1, 8, side))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float64, torch.float16])
def test_wrong_dtype(dtype: torch.dtype) -> None:
    with pytest.raises(TypeError, match=r"must be torch\.float32"):
        ReducedUNet(CHANNELS)(torch.zeros(1, 1, 8, 8, dtype=dtype))


@pytest.mark.parametrize("channels", [(), (4, 0)])
def test_wrong_channels(channels: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="channels"):
        ReducedUNet(channels)


@pytest.mark.parametrize("kind", ["unet", "multitask"])
def test_weights_there_and_back(kind: str, tmp_path) -> None:
    model = models.build(kind, CHANNELS, 0)
    model.segment(torch.rand(2, 1, 8, 8))  # moves the running statistics
    path = tmp_path / "model.safetensors"
    path.write_bytes(models.to_bytes(model))
    loaded = models.load(path)
    assert (loaded.kind, loaded.channels, loaded.training) == (kind, CHANNELS, False)
    for name, tensor in model.state_dict().items():
        assert loaded.state_dict()[name].equal(tensor)


def test_weights_that_are_not_ours(tmp_path) -> None:
    from safetensors.torch import save

    other = tmp_path / "other.safetensors"
    other.write_bytes(save({"weight": torch.zeros(1)}))
    with pytest.raises(CheckpointError, match="no weights of an ichfast model"):
        models.load(other)
    ours = models.to_bytes(ReducedUNet(CHANNELS))
    other.write_bytes(ours.replace(b"[2, 3, 4]", b"[2, 3, 5]"))
    with pytest.raises(CheckpointError, match="no weights of an ichfast model"):
        models.load(other)
    other.write_bytes(ours[: len(ours) // 2])
    with pytest.raises(CheckpointError, match="cannot be read"):
        models.load(other)
    with pytest.raises(CheckpointError, match="cannot be read"):
        models.load(tmp_path / "missing.safetensors")


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(["random", "ties", "nan"]), st.booleans())
def test_the_deterministic_pool_is_torch_s_to_the_bit(seed: int, kind: str, last: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 3, 8, 12, generator=generator)
    if kind != "random":
        x = x.round()  # zeros of both signs too
    if kind == "nan":
        x[torch.rand(x.shape, generator=generator) < 0.3] = float("nan")
    if last:
        x = x.contiguous(memory_format=torch.channels_last)
    ways = []
    for pool in (max_pool_deterministic, torch.nn.MaxPool2d(2)):
        given_one = x.clone().requires_grad_()
        pooled = pool(given_one)
        pooled.backward(torch.randn(pooled.shape, generator=torch.Generator().manual_seed(1)))
        assert given_one.grad is not None
        ways.append([t.detach().contiguous().view(torch.int32) for t in (pooled, given_one.grad)])
    assert all(one.equal(other) for one, other in zip(*ways, strict=True))


def test_a_cpu_pools_by_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("ichfast.models.norm.max_pool_deterministic")
    torch.use_deterministic_algorithms(True)
    try:
        ReducedUNet(CHANNELS)(torch.rand(2, 1, 8, 8))
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_joined_is_cat_with_gradients_without_gaps(layout) -> None:
    def inputs() -> list[torch.Tensor]:
        generator = torch.Generator().manual_seed(0)
        return [
            torch.randn(2, channels, 4, 6, dtype=torch.float64, generator=generator)
            .to(memory_format=layout)
            .requires_grad_()
            for channels in (3, 2)
        ]

    ours, theirs = inputs(), inputs()
    weight = torch.randn(2, 5, 4, 6, dtype=torch.float64).to(memory_format=layout)
    seen = []
    for tensor in ours:
        tensor.register_hook(lambda g: seen.append(g.is_contiguous(memory_format=layout)))
    joined, expected = _Concatenate.apply(*ours), torch.cat(theirs, 1)
    assert joined.equal(expected)
    assert joined.is_contiguous(memory_format=layout)
    (joined * weight).sum().backward()
    (expected * weight).sum().backward()
    assert all(a.grad.equal(b.grad) for a, b in zip(ours, theirs, strict=True))
    assert seen == [True, True]
    assert torch.autograd.gradcheck(_Concatenate.apply, inputs())
    assert torch.autograd.gradgradcheck(_Concatenate.apply, inputs())


@pytest.mark.parametrize("name", ["unet", "multitask"])
def test_gradients_by_torch_func(name: str) -> None:
    """Of the weights by ``functional_call``, and for each image alone by ``vmap``."""
    model = models.build(name, CHANNELS, 3).double().eval()
    weights = dict(model.named_parameters())
    images = torch.rand(3, 1, 8, 12, dtype=torch.float64)
    targets = torch.rand(3, 1, 8, 12) > 0.7

    def loss(weights: dict[str, torch.Tensor], image: torch.Tensor, target: torch.Tensor) -> Any:
        output = torch.func.functional_call(model, weights, (image[None],))
        logits = output if name == "unet" else output[0] + output[1].mean(1, keepdim=True)
        return DiceLoss(sigmoid=True)(logits, target[None])

    def expected(i: int) -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad(loss(weights, images[i], targets[i]), list(weights.values()))

    one = torch.func.grad(loss)(weights, images[0], targets[0])
    each = torch.func.vmap(torch.func.grad(loss), (None, 0, 0))(weights, images, targets)
    for i in range(3):
        torch.testing.assert_close([g[i] for g in each.values()], list(expected(i)))
    torch.testing.assert_close(list(one.values()), list(expected(0)))


def step(model: MultiTaskUNet, image: torch.Tensor, *, plain: bool) -> list[torch.Tensor]:
    """What a pass in training gives and moves."""
    with plain_modules() if plain else nullcontext():
        logits, reconstruction = model(image)
    (logits.square().mean() + reconstruction.square().mean()).backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    return [logits.detach(), reconstruction.detach(), *gradients, *model.buffers()]


@pytest.mark.parametrize("convolutions", [1, 2])
@pytest.mark.parametrize("momentum", [0.1, None])
def test_channels_last_is_the_same_network_in_fewer_passes(
    convolutions: int, momentum: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = to_channels_last(torch.rand(3, 1, 16, 24, dtype=torch.float64))
    found = []
    for plain in (False, True):
        model = models.build("multitask", (4, 6, 8), 0, convolutions).double()
        for norm in model.modules():
            if isinstance(norm, BatchNorm):
                norm.momentum = momentum
        found.append([*step(model, image, plain=plain), *step(model, image, plain=plain)])
        found[-1].append(model.eval().segment(image))
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-12)

    called = []
    for name in ("norm_relu", "norm_relu_pool"):
        real = getattr(norm_module, name)
        monkeypatch.setattr(
            norm_module, name, lambda *a, f=real, **o: (called.append(f), f(*a, **o))[1]
        )
    model = models.build("unet", (4, 6, 8), 0).double()
    model.segment(image)
    assert len(called) == 5  # three levels down, two up
    model.segment(torch.rand(3, 1, 16, 24, dtype=torch.float64))
    with plain_modules():
        model.segment(image)
    assert len(called) == 5


def test_frozen_statistics_stay() -> None:
    """Batch normalisation by the batch's statistics, which leave the running ones alone."""
    norm = BatchNorm(3)
    norm.track_running_stats = False
    x = torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    expected = torch.nn.functional.batch_norm(x, None, None, training=True)
    torch.testing.assert_close(norm(x), expected)
    assert norm.running_mean is not None
    assert norm.running_mean.equal(torch.zeros(3))
    assert norm.num_batches_tracked == 0


def test_the_state_dict_is_that_of_torch_s_modules() -> None:
    assert BatchNorm(3).state_dict().keys() == torch.nn.BatchNorm2d(3).state_dict().keys()
    one = BatchNorm(3)
    one.load_state_dict(torch.nn.BatchNorm2d(3).state_dict())
