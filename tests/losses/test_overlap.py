"""The losses of overlap as modules, with MONAI as the oracle for what both have."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ichfast.losses import AttentionWMSELoss, DiceLoss, JaccardLoss, TverskyLoss

SMOOTHING = [{}, {"smooth_nr": 1.0, "smooth_dr": 0.5}, {"smooth_nr": 0.0}]
PAIRS: list[tuple[type[nn.Module], str, dict[str, Any], dict[str, Any]]] = [
    (DiceLoss, "DiceLoss", {}, {}),
    (JaccardLoss, "DiceLoss", {}, {"jaccard": True}),
    (TverskyLoss, "TverskyLoss", {}, {}),
    (TverskyLoss, "TverskyLoss", {"alpha": 0.3, "beta": 0.8}, {"alpha": 0.3, "beta": 0.8}),
]


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return 2 * torch.randn(3, 4, 17, 19), (torch.rand(3, 4, 17, 19) < 0.2).float()


@pytest.mark.parametrize(("loss", "name", "ours", "theirs"), PAIRS)
@pytest.mark.parametrize("sigmoid", [True, False])
@pytest.mark.parametrize("smoothing", SMOOTHING, ids=str)
def test_numbers_of_monai(
    batch: tuple[Tensor, Tensor],
    loss: type[nn.Module],
    name: str,
    ours: dict[str, Any],
    theirs: dict[str, Any],
    sigmoid: bool,
    smoothing: dict[str, float],
) -> None:
    monai_losses = pytest.importorskip("monai.losses")
    logits, target = batch
    input = logits if sigmoid else logits.sigmoid()
    for over_batch in (False, True):
        for background in (True, False):
            for reduction in ("mean", "sum", "none"):
                shared: dict[str, Any] = {
                    "sigmoid": sigmoid,
                    "batch": over_batch,
                    "reduction": reduction,
                }
                shared |= {"include_background": background, **smoothing}
                one, other = loss(**shared, **ours), getattr(monai_losses, name)(**shared, **theirs)
                a, b = input.clone().requires_grad_(), input.clone().requires_grad_()
                value, expected = one(a, target), other(b, target)
                assert value.shape == expected.shape
                torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)
                value.sum().backward()
                expected.sum().backward()
                torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("loss", [DiceLoss, JaccardLoss, TverskyLoss])
def test_single_channel_without_background(loss: type[nn.Module]) -> None:
    """There is nothing but the background then, and MONAI keeps it too."""
    input, target = torch.rand(2, 1, 5, 6), torch.ones(2, 1, 5, 6)
    assert torch.equal(loss(include_background=False)(input, target), loss()(input, target))


@pytest.mark.parametrize("loss", [DiceLoss, JaccardLoss, TverskyLoss])
def test_monai_defaults_are_let_through(loss: type[nn.Module]) -> None:
    loss(to_onehot_y=False, softmax=False, other_act=None, squared_pred=False, jaccard=False)
    loss(weight=None, soft_label=False, ignore_index=None)


@pytest.mark.parametrize("loss", [DiceLoss, JaccardLoss, TverskyLoss])
@pytest.mark.parametrize(
    ("argument", "instead"),
    [
        ({"softmax": True}, "torch.softmax"),
        ({"other_act": torch.tanh}, "activation"),
        ({"squared_pred": True}, "no squared form"),
        ({"jaccard": True}, "JaccardLoss"),
        ({"weight": [1.0, 2.0]}, "reduction='none'"),
        ({"soft_label": True}, "soft targets"),
        ({"ignore_index": 255}, "ignored label"),
        ({"gamma": 2}, "has no argument 'gamma'"),
    ],
)
def test_what_monai_has_and_we_have_not(
    loss: type[nn.Module], argument: dict[str, Any], instead: str
) -> None:
    with pytest.raises(TypeError, match=f"{loss.__name__} .*{instead}"):
        loss(**argument)


ADVICE: list[tuple[dict[str, Any], dict[str, Any], Callable[..., Tensor]]] = [
    ({"softmax": True}, {}, lambda loss, x, y: loss(torch.softmax(x, 1), y)),
    ({"other_act": torch.tanh}, {}, lambda loss, x, y: loss(torch.tanh(x), y)),
    (
        {"weight": [0.0, 1.0, 3.0, 2.0], "sigmoid": True},
        {"sigmoid": True, "reduction": "none"},
        lambda loss, x, y: (loss(x, y).reshape(-1, 4) * torch.tensor([0.0, 1.0, 3.0, 2.0])).mean(),
    ),
    ({"soft_label": True, "sigmoid": True}, {"sigmoid": True}, lambda loss, x, y: loss(x, y)),
    (
        {"ignore_index": 2, "to_onehot_y": True, "softmax": True},
        {},
        lambda loss, x, y: loss(torch.softmax(x, 1) * (1 - y[:, 2:3]), y * (1 - y[:, 2:3])),
    ),
]


@pytest.mark.parametrize(("theirs", "ours", "call"), ADVICE, ids=[next(iter(a[0])) for a in ADVICE])
@pytest.mark.parametrize("over_batch", [True, False])
def test_the_advice_works(
    labels: tuple[Tensor, Tensor],
    theirs: dict[str, Any],
    ours: dict[str, Any],
    call: Callable[..., Tensor],
    over_batch: bool,
) -> None:
    """What the errors say to do instead gives MONAI's number."""
    monai_losses = pytest.importorskip("monai.losses")
    logits, target = labels
    one_hot = nn.functional.one_hot(target[:, 0], 4).movedim(-1, 1).float()
    expected = monai_losses.DiceLoss(batch=over_batch, **theirs)(
        logits, target if theirs.get("to_onehot_y") else one_hot
    )
    value = call(DiceLoss(batch=over_batch, **ours), logits, one_hot)
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)


@pytest.fixture
def labels() -> tuple[Tensor, Tensor]:
    """Logits of four classes, and labels (B, 1, *S)."""
    torch.manual_seed(0)
    return 2 * torch.randn(3, 4, 17, 19), torch.randint(0, 4, (3, 1, 17, 19))


@pytest.mark.parametrize(("loss", "name", "ours", "theirs"), PAIRS)
@pytest.mark.parametrize(
    "dtype", [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool], ids=str
)
@pytest.mark.parametrize("precision", [torch.float32, torch.float64], ids=str)
def test_integer_targets(
    batch: tuple[Tensor, Tensor],
    loss: type[nn.Module],
    name: str,
    ours: dict[str, Any],
    theirs: dict[str, Any],
    dtype: torch.dtype,
    precision: torch.dtype,
) -> None:
    monai_losses = pytest.importorskip("monai.losses")
    logits, target = batch[0].to(precision), batch[1].to(dtype)
    expected = getattr(monai_losses, name)(sigmoid=True, **theirs)(logits, target.to(torch.int64))
    torch.testing.assert_close(loss(sigmoid=True, **ours)(logits, target), expected)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int16, torch.int8, torch.uint8], ids=str)
def test_integers_other_than_0_and_1_are_multiplied(
    batch: tuple[Tensor, Tensor], dtype: torch.dtype
) -> None:
    """As in MONAI: nothing wraps, nothing is clipped."""
    monai_losses = pytest.importorskip("monai.losses")
    target = torch.tensor([0, 1, 2, 255, 300, -1])[torch.randint(0, 6, batch[0].shape)].to(dtype)
    expected = monai_losses.TverskyLoss(sigmoid=True)(batch[0], target.to(torch.int64))
    torch.testing.assert_close(TverskyLoss(sigmoid=True)(batch[0], target), expected)


@pytest.mark.parametrize(("loss", "name", "ours", "theirs"), PAIRS)
@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.float32], ids=str)
@pytest.mark.parametrize("background", [True, False])
def test_labels_are_encoded(
    labels: tuple[Tensor, Tensor],
    loss: type[nn.Module],
    name: str,
    ours: dict[str, Any],
    theirs: dict[str, Any],
    dtype: torch.dtype,
    background: bool,
) -> None:
    monai_losses = pytest.importorskip("monai.losses")
    logits, target = labels
    shared = {"to_onehot_y": True, "sigmoid": True, "include_background": background}
    a, b = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    value = loss(**shared, **ours)(a, target.to(dtype))
    expected = getattr(monai_losses, name)(**shared, **theirs)(b, target.to(dtype))
    torch.testing.assert_close(value, expected)
    value.backward()
    expected.backward()
    torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-8)


def test_one_channel_is_not_encoded(batch: tuple[Tensor, Tensor]) -> None:
    """MONAI warns that it ignores ``to_onehot_y`` there."""
    monai_losses = pytest.importorskip("monai.losses")
    logits, target = batch[0][:, :1], batch[1][:, :1].long()
    shared = {"to_onehot_y": True, "sigmoid": True}
    with pytest.warns(UserWarning, match="to_onehot_y"):
        expected = monai_losses.DiceLoss(**shared)(logits, target)
    torch.testing.assert_close(DiceLoss(**shared)(logits, target), expected)


@pytest.mark.parametrize("shape", [(3, 17, 19), (3, 4, 17, 19), (3, 1, 17, 20)])
def test_labels_of_another_shape(labels: tuple[Tensor, Tensor], shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"DiceLoss: .* shape \(3, 1, 17, 19\), not .*unsqueeze"):
        DiceLoss(to_onehot_y=True)(labels[0], torch.zeros(shape, dtype=torch.int64))


def test_labels_beyond_the_channels(labels: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(RuntimeError, match="index 4 is out of bounds"):
        DiceLoss(to_onehot_y=True)(labels[0], labels[1] + 1)


@pytest.mark.parametrize(("loss", "name"), [(DiceLoss, "DiceLoss"), (TverskyLoss, "TverskyLoss")])
def test_positional_arguments(
    labels: tuple[Tensor, Tensor], loss: type[nn.Module], name: str
) -> None:
    """Every argument of MONAI, in its order."""
    theirs = getattr(pytest.importorskip("monai.losses"), name)
    names = list(inspect.signature(theirs).parameters)
    assert list(inspect.signature(loss).parameters)[: len(names)] == names
    values = {
        **{n: p.default for n, p in inspect.signature(theirs).parameters.items()},
        "include_background": False,
        "to_onehot_y": True,
        "sigmoid": True,
        "reduction": "sum",
        "smooth_nr": 1.0,
        "smooth_dr": 0.5,
        "batch": True,
    }
    if loss is TverskyLoss:
        values |= {"alpha": 0.3, "beta": 0.8}
    arguments = [values[name] for name in names]
    torch.testing.assert_close(loss(*arguments)(*labels), theirs(*arguments)(*labels))


@pytest.mark.parametrize("loss", [DiceLoss, JaccardLoss])
def test_alpha_is_tverskys_alone(loss: type[nn.Module]) -> None:
    with pytest.raises(TypeError, match=f"{loss.__name__} has no argument 'alpha'"):
        loss(alpha=0.3)


@pytest.mark.parametrize("loss", [DiceLoss, JaccardLoss, TverskyLoss, AttentionWMSELoss])
def test_unknown_reduction(loss: type[nn.Module]) -> None:
    with pytest.raises(ValueError, match="reduction must be 'mean', 'sum' or 'none', not 'max'"):
        loss(reduction="max")


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(ValueError, match=r"prediction and target .* \(2, 1, 4, 4\)"):
        DiceLoss()(torch.rand(2, 1, 4, 4), torch.rand(2, 4, 4))
    with pytest.raises(ValueError, match=r"\(2, 3, 4, 4\) and \(2, 1, 4, 4\)"):
        DiceLoss(include_background=False)(torch.rand(2, 3, 4, 4), torch.rand(2, 1, 4, 4))


def test_what_is_no_tensor_is_named() -> None:
    with pytest.raises(TypeError, match=r"DiceLoss: target must be a torch\.Tensor, not list"):
        DiceLoss()(torch.rand(2, 1, 4, 4), [0, 1])
