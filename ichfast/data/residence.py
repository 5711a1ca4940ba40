"""Where a pool's pixels lie while batches are made of them: on the device where there is room, else
in the host's memory (pinned, so that a GPU fetches from it directly), else in their file.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Place = Literal["device", "pinned", "memory", "mapped"]

# Of the free memory: the rest is for weights, activations and other programs.
DEVICE_SHARE = 0.5
HOST_SHARE = 0.5


def choose_place(
    needed: int, device: torch.device, *, mapped: bool, device_free: int, host_free: int
) -> Place:
    """Where ``needed`` bytes go, ``mapped`` if they come from a file. Free bytes of a CPU do not
    count: pixels stay in memory where they are, and a file's in the page cache.
    """
    if device.type == "cpu":
        return "mapped" if mapped else "memory"
    if needed <= DEVICE_SHARE * device_free:
        return "device"
    if needed <= HOST_SHARE * host_free:
        return "pinned"
    return "mapped" if mapped else "memory"


@dataclass(frozen=True, eq=False)
class Store:
    """Pixels of the pool, and how batches get them."""

    place: Place
    device: torch.device  # of the batches
    hu: Tensor  # (P, S, S) int16; of the chosen rows alone, (N, S, S), where they were copied
    masks: Tensor | None
    rows: Tensor  # (N,) int64, places of the set's slices in ``hu``, and on its device

    def describe(self) -> str:
        """The size of the chosen slices and their place, in words."""
        pixels = [p for p in (self.hu, self.masks) if p is not None]
        size = len(self.rows) * sum(p[:1].nbytes for p in pixels) / 2**20
        where = {
            "device": f"on {self.device}",
            "pinned": "in pinned memory",
            "memory": "in memory",
            "mapped": "mapped from the pool's file",
        }
        return f"{size:,.0f} MiB {where[self.place]}"

    def fetch(self, indices: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
        """What `pool_batch` needs for the slices ``indices`` (B,) of the set: pixels, masks, and
        the slices' places in them, all on the device, without waiting for it.
        """
        if self.place == "device" or self.device.type == "cpu":
            indices = indices.to(self.rows.device, non_blocking=True)
            return self.hu, self.masks, self.rows[indices]
        rows = self.rows[indices]
        masks = None if self.masks is None else self._send(self.masks, rows)
        return self._send(self.hu, rows), masks, torch.arange(len(rows), device=self.device)

    def _send(self, pixels: Tensor, rows: Tensor) -> Tensor:
        if self.place == "pinned":  # slice by slice, with no copy on the host in between
            batch = pixels.new_empty((len(rows), *pixels.shape[1:]), device=self.device)
            for image, row in zip(batch, rows.tolist(), strict=True):
                image.copy_(pixels[row], non_blocking=True)
            return batch
        # torch keeps pinned memory until the copy out of it is done.
        return pixels[rows].pin_memory().to(self.device, non_blocking=True)


def make_store(
    device: torch.device, hu: Tensor, masks: Tensor | None, rows: Tensor, *, mapped: bool
) -> Store:
    """The pool's chosen ``rows`` where `choose_place` puts them, masks beside images."""
    slices = [pixels for pixels in (hu, masks) if pixels is not None]
    needed = sum(len(rows) * pixels[:1].nbytes for pixels in slices)
    on_gpu = device.type == "cuda"
    place = choose_place(
        needed,
        device,
        mapped=mapped,
        device_free=torch.cuda.mem_get_info(device)[0] if on_gpu else 0,
        host_free=measure_free_memory() if on_gpu else 0,
    )
    if place in ("memory", "mapped"):
        return Store(place, device, hu, masks, rows)
    home = device if place == "device" else torch.device("cpu")
    copies = [copy_rows(pixels, rows, home, pinned=place == "pinned") for pixels in slices]
    own = torch.arange(len(rows), device=home)
    return Store(place, device, copies[0], copies[1] if masks is not None else None, own)


def copy_rows(pixels: Tensor, rows: Tensor, device: torch.device, *, pinned: bool) -> Tensor:
    """The rows on the device, a few at a time, so that the host never holds them all twice."""
    shape = (len(rows), *pixels.shape[1:])
    result = torch.empty(shape, dtype=pixels.dtype, device=device, pin_memory=pinned)
    for chosen, place in zip(rows.split(256), result.split(256), strict=True):
        place.copy_(pixels[chosen])
    return result


def measure_free_memory() -> int:
    """Bytes that programs may still allocate, by Linux's own estimate; 0 where there is none."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            fields = dict(line.split(":", 1) for line in lines)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return 0
