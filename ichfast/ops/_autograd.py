"""Where the native ops meet autograd, double backward and the transforms of torch.func."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd import Function


def is_transforming() -> bool:
    """Whether the caller is inside grad, vmap or another transform of torch.func."""
    return torch._C._are_functorch_transforms_active()


class OpFunction(Function):
    """An autograd.Function that torch.func transforms too; called by ``run``, not by ``apply``.

    Subclasses have a ``forward`` without context and ``setup_context``, as torch.func asks for.
    ``apply`` reads the signature of such a ``forward`` at every call, which takes four times as
    long as a small loss itself. So where nothing is transformed, ``run`` applies a twin whose
    ``forward`` has the context.
    """

    generate_vmap_rule = True  # from those of the native ops
    _twin: ClassVar[type[Function]]

    def __init_subclass__(cls) -> None:
        def forward(ctx: Any, *inputs: Any) -> Any:
            output = cls.forward(*inputs)
            cls.setup_context(ctx, inputs, output)
            return output

        members = {"forward": staticmethod(forward), "backward": staticmethod(cls.backward)}
        cls._twin = type(cls.__name__, (Function,), {"__module__": cls.__module__, **members})

    @classmethod
    def run(cls, *inputs: Any) -> Any:
        function = cls if torch.compiler.is_compiling() or is_transforming() else cls._twin
        return function.apply(*inputs)

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
