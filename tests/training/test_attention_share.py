"""The share of the encoder's gradient that comes from the foreground: the measurement itself."""

import pytest
import torch
from tiny_runs import parts as make_parts
from tiny_runs import synthetic, tiny
from torch import Tensor, nn

from benchmarks.attention_share import BALANCES, divide, draw_batches, follow, measure, measure_norm
from ichfast import models
from ichfast.losses import AttentionWMSELoss


class Masked(nn.Module):
    """A model whose mask is known: blood in the first ``rows`` rows; one weight, which both maps
    are, as encoder."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.rows = rows

    def groups(self) -> dict[str, list[nn.Parameter]]:
        return {"encoder": [self.weight]}

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        logits = torch.full_like(image, -50.0)
        logits[:, :, : self.rows] = 50
        return logits, self.weight.expand(len(image), 2, *image.shape[2:])


@pytest.mark.parametrize("balance", ["paper", "region"])
def test_the_gradients_of_both_terms_add_up_to_the_whole(balance) -> None:
    model, image = models.build("multitask", (2, 3, 4), 0).train(), torch.rand(3, 1, 16, 16)
    logits, r = model(image)
    loss = AttentionWMSELoss(balance=balance)
    whole = torch.autograd.grad(
        loss(image, logits, r), model.groups()["encoder"], retain_graph=True
    )
    terms = [
        torch.autograd.grad(
            loss(image, logits, torch.cat(channels, 1)),
            model.groups()["encoder"],
            retain_graph=True,
        )
        for channels in ((r[:, :1], r[:, 1:].detach()), (r[:, :1].detach(), r[:, 1:]))
    ]
    for total, background, foreground in zip(whole, *terms, strict=True):
        torch.testing.assert_close(total, background + foreground)
    norms = [torch.cat([g.flatten() for g in term]).norm().item() for term in terms]
    share = measure(model, [image], balance).term
    assert share == pytest.approx(norms[1] / sum(norms), rel=1e-4)


def test_known_shares() -> None:
    """Both maps wrong by as much everywhere: by area, the paper's shares; by region, one half."""
    batches = [torch.zeros(2, 1, 16, 16)]
    paper, region = (measure(Masked(4), batches, balance) for balance in BALANCES)  # type: ignore[arg-type]
    assert paper.area == region.area == pytest.approx(0.25)
    assert paper.term == pytest.approx(0.25)
    assert paper.blood == pytest.approx(0.25)
    assert region.term == pytest.approx(0.5)
    assert region.blood == pytest.approx(0.5, abs=0.01)  # but for the one voxel


def test_the_model_stays_as_it_was() -> None:
    model = models.build("multitask", (2, 3, 4), 0).eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    measure(model, [torch.rand(3, 1, 16, 16)], "region")
    assert all(tensor.equal(before[name]) for name, tensor in model.state_dict().items())
    assert not model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_part_without_gradient_has_no_share() -> None:
    model = Masked(0)
    output = model.weight * torch.ones(3)
    assert measure_norm(model, output, torch.zeros(3)) == 0.0  # type: ignore[arg-type]
    assert divide(0.0, 0.0) == 0.0
    assert divide(1.0, 3.0) == 0.25


def test_it_follows_a_training() -> None:
    settings = ("supervised.optimizer=adam", "unsupervised.balance=region")
    lines = follow(make_parts(), tiny(*settings), [0, 2])
    assert [line.split("|")[1:3] for line in lines] == [[" region ", " 0 "], [" region ", " 2 "]]
    assert lines[0].split("|")[4:] != lines[1].split("|")[4:]


def test_batches_are_the_same_each_time() -> None:
    slices = synthetic("unlabelled", 20, masks=False)
    one, other = draw_batches(slices), draw_batches(slices)
    assert sum(map(len, one)) == 20
    assert all(a.equal(b) for a, b in zip(one, other, strict=True))
