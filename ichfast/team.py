"""The processes that train one model together, as `torchrun` starts them; usually just one.

What all processes know (a global batch, a loss, the weights) is bit for bit the same on each. Each
takes its share of a batch, and the results of the shares are summed over all.
"""

import contextlib
import ctypes
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from ichfast.errors import IchfastError, RecipeError, TeamError
from ichfast.heartbeat import keep_contact
from ichfast.interrupts import SIGNALS, Halted, Stop, asked
from ichfast.terminal import tolerate

if TYPE_CHECKING:  # some builds of torch have none of it
    from torch.distributed.distributed_c10d import Store

T = TypeVar("T")

ASKED = 4
"""batches between two looks at the others' signals: a batch takes some twenty sums over all"""

PATIENCE = timedelta(hours=1)
"""how long to wait for the others: the first may have a phantom to write; a death shows at once"""


@dataclass(frozen=True)
class Team:
    rank: int = 0
    size: int = 1
    local_rank: int = 0
    """among the processes of this machine"""
    restarts: int = 0
    """how often torchrun has started all processes anew after losing one"""
    restarts_left: int = 0
    launch: str = ""
    """which call of torchrun this is, restarts included"""
    store: "Store | None" = None
    stop: Stop | None = None
    """what asks to end the training that goes on; None: none does"""

    @property
    def leads(self) -> bool:
        """Whether this is the one process that writes files and prints."""
        return self.rank == 0

    @property
    def group(self) -> "dist.ProcessGroup | None":
        return None if self.size == 1 else dist.group.WORLD

    def choose_device(self, device: torch.device) -> torch.device:
        """The device of this kind that is this process's own."""
        if device.type == "cuda" and self.size > 1:
            device = torch.device("cuda", self.local_rank)
            torch.cuda.set_device(device)
        return device

    def share(self, count: int) -> slice:
        """This process's places in a batch of ``count`` slices."""
        if count < self.size:
            raise RecipeError(
                f"a batch of {count} slices cannot be shared by {self.size} processes; take larger "
                "batches (supervised.batch_size, unsupervised.batch_size) or fewer processes."
            )
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def mean(self, value: Tensor, count: int) -> Tensor:
        """The mean over all values, from each process's mean over its ``count`` values. Backward
        gives this process's part of the gradient."""
        if self.size == 1:
            return value
        mean: Tensor = _Mean.apply(value, count)
        return mean

    def gather(self, share: Tensor, count: int) -> Tensor:
        """The values of a whole batch of ``count`` slices, of which this process has its
        ``share``; without gradient. Zeros are added to them, so they arrive as they are."""
        if self.size == 1:
            return share
        whole = share.new_zeros((count, *share.shape[1:]))
        whole[self.share(count)] = share
        return sum_over(whole)

    def sum(self, tensor: Tensor) -> Tensor:
        """Over all processes, in place."""
        return tensor if self.size == 1 else sum_over(tensor)

    def sum_gradients(self, optimizer: torch.optim.Optimizer) -> None:
        """Over all processes, of what ``optimizer`` updates."""
        if self.size == 1:
            return
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = sum_over(torch.cat([gradient.flatten() for gradient in gradients]))
        for gradient, total in zip(
            gradients, flat.split([g.numel() for g in gradients]), strict=True
        ):
            gradient.copy_(total.view_as(gradient))

    def any(self, flag: bool) -> bool:
        """Whether ``flag`` is true on any process."""
        return bool(self.sum(torch.tensor(int(flag))))

    def check_stop(self) -> None:
        """Raise `Halted` on all processes where one has got a signal. After each batch, so that a
        run ends in time, whatever an epoch takes. All call it equally often, and ask each other
        every `ASKED` times."""
        if self.stop is None or (self.size == 1 and not self.stop.is_set()):
            return
        self.stop.turns += 1
        if self.size > 1 and self.stop.turns % ASKED:
            return
        got = self.sum(torch.tensor([int(self.stop.number == number) for number in SIGNALS]))
        for number, times in zip(SIGNALS, got.tolist(), strict=True):
            if times:
                asked.number = number
                raise Halted(number)

    def agree(self, value: Any) -> bool:
        """Whether all processes have the same value."""
        if self.size == 1:
            return True
        values = [None] * self.size
        with require_contact():
            dist.all_gather_object(values, value)
        return all(other == value for other in values)

    def lead(self, action: Callable[[], T]) -> T:
        """Run ``action`` on the first process, and give its result or its error to all."""
        if self.size == 1:
            return action()
        results: list[Any] = [None, None]
        if self.leads:
            try:
                results[0] = action()
            except IchfastError as error:
                results[1] = error
        with require_contact():
            dist.broadcast_object_list(results, src=0)
        if results[1] is not None:
            raise results[1]
        result: T = results[0]
        return result

    def describe_error(self, error: IchfastError) -> str | None:
        """The line that this process prints about its error; None where another one prints it."""
        if self.store is None:
            return str(error)
        name = f"process {self.rank} of {self.size}: {error}"
        try:
            keys = [f"error of {rank}" for rank in range(self.size)]
            if isinstance(error, TeamError):  # the one that died may have said why
                return None if any(self.store.check([key]) for key in keys) else name
            self.store.set(keys[self.rank], str(error))
            for _ in range(30):  # an error of all is there at once, one of a single process never
                if self.store.check(keys):
                    if len({self.store.get(key) for key in keys}) == 1:
                        return str(error) if self.leads else None
                    break
                time.sleep(0.1)
        except RuntimeError:  # the store is gone
            pass
        return name


ALONE = Team()


def is_launched() -> bool:
    """Whether torchrun, or what sets the same variables, has started this process."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    return all(name in os.environ for name in names)


@contextlib.contextmanager
def join_team() -> Iterator[Team]:
    """The team that this process belongs to."""
    if not is_launched():
        yield ALONE
        return
    environment = os.environ
    restarts = int(environment.get("TORCHELASTIC_RESTART_COUNT", 0))
    launch = environment.get("TORCHELASTIC_RUN_ID", "none")
    if launch == "none":  # torchrun's default; its process id serves as well on one machine
        launch = f"{socket.gethostname()} {os.getppid()}"
    if "TORCHELASTIC_RUN_ID" in environment:
        end_with_launcher()
    about: dict[str, Any] = {
        "local_rank": int(environment["LOCAL_RANK"]),
        "restarts": restarts,
        "restarts_left": int(environment.get("TORCHELASTIC_MAX_RESTARTS", 0)) - restarts,
        "launch": launch,
    }
    if int(environment["WORLD_SIZE"]) == 1:
        yield Team(**about)
        return
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    with require_contact():
        store, rank, size = next(rendezvous("env://", timeout=PATIENCE))
        # torchrun keeps its store over a restart, and with it the addresses of the dead.
        store = PrefixStore(f"restart {restarts}", store)
        # Tensors travel over the backend of their device, everything else over the CPU's.
        gpu = torch.cuda.is_available() and dist.is_nccl_available()
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if gpu else "gloo",
            store=store,
            rank=rank,
            world_size=size,
            timeout=PATIENCE,
        )
    with keep_contact(store, rank, size, complain):
        yield Team(rank, size, store=store, **about)
    dist.destroy_process_group()  # after an error the others may be gone, and this would wait


def end_with_launcher() -> None:
    """SIGTERM for this process when torchrun is gone, which passes on some signals and dies by
    others. Only Linux has that."""
    if sys.platform == "linux":
        PR_SET_PDEATHSIG = 1  # of sys/prctl.h
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


@contextlib.contextmanager
def silence_followers() -> Iterator[None]:
    """Every process but the first is silent, bars and warnings included."""
    if not is_launched() or os.environ["RANK"] == "0":
        yield
        return
    with (
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        yield


def complain(line: str) -> None:
    """Print on standard error, even where `silence_followers` silences this process."""
    print(line, file=tolerate(sys.__stderr__) if is_launched() else sys.stderr, flush=True)


@contextlib.contextmanager
def require_contact() -> Iterator[None]:
    """Raise TeamError where another process cannot be reached."""
    try:
        yield
    except RuntimeError as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise TeamError(f"another process has died or cannot be reached ({reason}).") from error


def sum_over(tensor: Tensor, group: "dist.ProcessGroup | None" = None) -> Tensor:
    """The sum over the processes of ``group`` (None: all), in place; each has the same bits."""
    with require_contact():
        dist.all_reduce(tensor, group=group)
    return tensor


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, count: int) -> Tensor:
        wide = value.detach().double() * count
        total = sum_over(torch.stack([wide, torch.full_like(wide, count)]))
        ctx.share = count / total[1]
        return (total[0] / total[1]).to(value.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return (grad * ctx.share).to(grad.dtype), None
