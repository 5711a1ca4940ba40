"""Where the native ops meet autograd, double backward and the transforms of torch.func."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import _SingleLevelFunction


def is_transforming() -> bool:
    """Whether the caller is inside grad, vmap or another transform of torch.func."""
    return torch._C._are_functorch_transforms_active()


class OpFunction(Function):
    """An autograd.Function that torch.func transforms too; called by ``run``, not by ``apply``.

    Subclasses have a ``forward`` without context and ``setup_context``, as torch.func asks for.
    ``apply`` reads the signature of such a ``forward`` at every call, which takes four times as
    long as a small loss itself. So where nothing is transformed, ``run`` applies a twin whose
    ``forward`` has the context, and whose ``apply`` is the one in C++ under torch's own.
    """

    generate_vmap_rule = True  # from those of the native ops
    _apply: ClassVar[Callable[..., Any]]  # of the twin

    def __init_subclass__(cls) -> None:
        compute, setup_context, select = cls.forward, cls.setup_context, cls.select

        def forward(ctx: Any, *inputs: Any) -> Any:
            output = compute(*inputs)
            setup_context(ctx, inputs, output)
            return select(output)

        members = {"forward": staticmethod(forward), "backward": staticmethod(cls.backward)}
        module = {"__module__": cls.__module__}
        twin: Any = type(cls.__name__, (_SingleLevelFunction,), {**module, **members})
        cls._apply = twin.apply

    @staticmethod
    def select(output: Any) -> Any:
        """Of what ``forward`` returns, what ``run`` does: not what backward alone reads, which the
        twin need not make a result of autograd's."""
        return output

    @classmethod
    def run(cls, *inputs: Any) -> Any:
        if torch.compiler.is_compiling() or is_transforming():
            return cls.select(cls.apply(*inputs))
        return cls._apply(*inputs)

    @classmethod
    def run_in_backward(cls, *inputs: Any) -> Any:
        """For the Function that a backward is: itself only where it is differentiated again."""
        return cls.run(*inputs) if torch.is_grad_enabled() else cls.forward(*inputs)


def differentiate_gradients(
    plain: Callable[..., Any],
    arguments: Sequence[Tensor],
    wanted: Sequence[bool],
    grads: Any,
    upstream: Sequence[Tensor],
) -> tuple[Any, tuple[Tensor, ...]]:
    """Double backward of an op, from its plain form.

    Args:
        plain: the op as a function of the arguments that have a gradient.
        arguments: these.
        wanted: whose gradients backward computed.
        grads: what had arrived at the op's results, as ``plain`` returns them.
        upstream: what arrives at the arguments' gradients.

    Returns:
        the gradients of Σ⟨upstream, the wanted gradients⟩ with respect to grads and to arguments.
    """

    def gradients(grads: Any, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        pull = torch.func.vjp(plain, *arguments)[1]
        return select(pull(grads))

    def select(values: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return tuple(value for value, want in zip(values, wanted, strict=True) if want)

    pull = torch.func.vjp(gradients, grads, tuple(arguments))[1]
    result: tuple[Any, tuple[Tensor, ...]] = pull(select(upstream))
    return result
