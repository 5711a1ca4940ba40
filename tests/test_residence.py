"""Where a pool's pixels lie: chosen by room, and batches are the same from everywhere."""

import pytest
import torch
from slice_sets import slice_set

from ichfast.data import SliceSet, residence
from ichfast.data.residence import Store, choose_place

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
GIB = 2**30


@pytest.mark.parametrize(
    ("device", "mapped", "device_free", "host_free", "place"),
    [
        (CPU, False, 0, 0, "memory"),
        (CPU, True, 0, 0, "mapped"),
        (CUDA, True, 28, 0, "device"),
        (CUDA, True, 26, 100, "pinned"),
        (CUDA, True, 26, 20, "mapped"),
        (CUDA, False, 26, 20, "memory"),
    ],
)
def test_place(device, mapped, device_free, host_free, place) -> None:
    chosen = choose_place(
        14 * GIB,
        device,
        mapped=mapped,
        device_free=device_free * GIB,
        host_free=host_free * GIB,
    )
    assert chosen == place


def test_free_memory_of_this_machine() -> None:
    assert residence.measure_free_memory() > 2**20


def test_copies_hold_the_chosen_rows() -> None:
    pixels = torch.arange(600 * 4, dtype=torch.int16).view(600, 2, 2)
    rows = torch.randperm(600)[:555]
    assert torch.equal(residence.copy_rows(pixels, rows, CPU, pinned=False), pixels[rows])
    empty = residence.copy_rows(pixels, rows[:0], CPU, pinned=False)
    assert empty.shape == (0, 2, 2)


def test_what_is_said() -> None:
    slices = some_slices().to("cpu")
    assert slices.store is not None
    assert slices.store.describe() == "0 MiB in memory"
    assert slices.to("cpu") is slices
    big = torch.zeros(1, dtype=torch.int16).expand(10**4, 256, 256)
    store = Store("pinned", CUDA, big, None, torch.arange(8192))
    assert store.describe() == "1,024 MiB in pinned memory"


def some_slices() -> SliceSet:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(9, 1, 8, 8, generator=generator)
    return slice_set(images, (images > 0.5).byte(), tuple("abcabcabc")).select([7, 3, 3, 0])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("place", ["device", "pinned", "memory", "mapped"])
def test_batches_are_the_same_from_everywhere(monkeypatch, place) -> None:
    monkeypatch.setattr(residence, "choose_place", lambda *_, **__: place)
    slices = some_slices()
    there = slices.to("cuda")
    assert there.store is not None
    assert there.store.place == place
    for indices in (torch.tensor([2, 0, 3, 2]), torch.tensor([], dtype=torch.long)):
        for one, other in zip(there.batch(indices), slices.batch(indices), strict=True):
            assert one.is_cuda
            torch.testing.assert_close(one.cpu(), other, atol=1e-6, rtol=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_pool_is_put_on_the_device_where_it_fits() -> None:
    there = some_slices().to("cuda")
    assert there.store is not None
    assert there.store.place == "device"
