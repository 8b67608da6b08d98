"""Which parts of the State and Config does a kernel get?"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, Protocol, cast, runtime_checkable

import equinox as eqx

from researchlab.design._binding import Parameters, check_not_given_twice, kernel_name
from researchlab.design._field_path import FieldPath
from researchlab.design._typevars import C, P, R, R_co, S
from researchlab.errors import KernelCallError

Extracted = tuple[Sequence[Any], Mapping[str, Any]]


@runtime_checkable
class Kernel(Protocol[P, R_co]):
    """A pure function of its inputs: it touches nothing else, so that JAX may trace it and a run can repeat it."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Compute the result."""
        ...


class Selector(Generic[S, C]):
    """Says which arguments a kernel gets, given a State and a Config. Usable as a decorator.

    Example:
        >>> @Selector(lambda state, config: ((state.x,), {"lr": config.lr}))
        ... def step(x, lr, batch): ...
        >>> step(state, config, batch)  # runs step(state.x, config.lr, batch)
    """

    def __init__(self, extractor: Callable[[S, C], Extracted]) -> None:
        """Keep the extractor.

        Args:
            extractor: ``extractor(state, config) -> (args, kwargs)``.

        Raises:
            KernelCallError: the extractor cannot be called.
        """
        if not callable(extractor):
            msg = f"a Selector takes a function (state, config) -> (args, kwargs), not {extractor!r}"
            raise KernelCallError(msg)
        self.extractor = extractor

    def extract(self, state: S, config: C) -> Extracted:
        """Return the arguments that the kernel gets from this State and Config.

        Raises:
            KernelCallError: the extractor did not return ``(args, kwargs)``.
        """
        extracted: object = self.extractor(state, config)
        match extracted:
            case (tuple() | list(), Mapping()):
                return cast("Extracted", extracted)
            case _:
                msg = (
                    f"the extractor {kernel_name(self.extractor)!r} must return (args, kwargs), a tuple and a dict,"
                    f" and returned {_outline(extracted)}"
                )
                raise KernelCallError(msg)

    def __call__(self, kernel: Kernel[..., R]) -> SelectedKernel[S, C, R]:
        """Wrap a kernel.

        Returns:
            A kernel of ``(state, config)`` with the name and docstring of the wrapped one.
        """
        return cast("SelectedKernel[S, C, R]", eqx.module_update_wrapper(SelectedKernel(kernel, self)))

    def __eq__(self, other: object) -> bool:
        """Compare by extractor, so that equal selections share a compiled function."""
        return type(other) is type(self) and cast("Selector[Any, Any]", other).extractor == self.extractor

    def __hash__(self) -> int:
        """Hash by extractor."""
        return hash((type(self), self.extractor))


class FieldSelector(Selector[S, C]):
    """Says which arguments a kernel gets by dotted paths.

    Paths follow attributes, dict keys and indices of sequences and arrays; a dict key that holds a dot is written with
    a backslash before the dot.

    Example:
        >>> @FieldSelector(x="state.position", lr="config.optimiser.learning_rate")
        ... def step(x, lr, batch): ...
        >>> step(state, config, batch)
    """

    def __init__(self, /, **mappings: str) -> None:
        """Check the paths and keep them.

        Args:
            **mappings: the kernel's argument name to a path that starts with ``state.`` or ``config.``.

        Raises:
            FieldPathError: a path is malformed.
        """
        self.paths = tuple(FieldPath.parse(argument, text) for argument, text in mappings.items())
        super().__init__(self._follow)

    def _follow(self, state: S, config: C) -> Extracted:
        return (), {path.argument: path.follow(state, config) for path in self.paths}

    def __call__(self, kernel: Kernel[..., R]) -> SelectedKernel[S, C, R]:
        """Wrap a kernel.

        Raises:
            KernelCallError: the kernel has no parameter of a name that a path was given for.
        """
        parameters = Parameters.of(kernel)
        if parameters is not None:
            parameters.check_names(path.argument for path in self.paths)
        return super().__call__(kernel)

    def __eq__(self, other: object) -> bool:
        """Compare by paths."""
        return type(other) is type(self) and cast("FieldSelector[Any, Any]", other).paths == self.paths

    def __hash__(self) -> int:
        """Hash by paths."""
        return hash((type(self), self.paths))

    def __repr__(self) -> str:
        """Return the call that makes this selector."""
        return f"FieldSelector({', '.join(f'{path.argument}={path.text!r}' for path in self.paths)})"


class _OfInstance:
    """The signature of an instance's call, hidden from the class, whose own signature is that of its constructor.

    Without it ``inspect.signature``, and so ``eqx.filter_jit``, would follow ``__wrapped__`` to the kernel's
    parameters.
    """

    def __get__(self, instance: object, owner: type | None = None) -> inspect.Signature:
        if instance is None:
            raise AttributeError
        positional = inspect.Parameter.POSITIONAL_OR_KEYWORD
        return inspect.Signature(
            [
                inspect.Parameter("state", positional),
                inspect.Parameter("config", positional),
                inspect.Parameter("args", inspect.Parameter.VAR_POSITIONAL),
                inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD),
            ]
        )


class SelectedKernel(eqx.Module, Generic[S, C, R]):
    """A kernel that takes ``(state, config)`` and gets from them what its selector says.

    Attributes:
        raw: the kernel as it was before it was wrapped. It is part of the PyTree: the arrays of a kernel that is an
            ``eqx.Module`` are leaves.
        selector: what chose the arguments.
    """

    raw: Kernel[..., R]
    selector: Selector[S, C] = eqx.field(static=True)
    _parameters: Parameters | None = eqx.field(static=True)

    __signature__ = _OfInstance()

    def __init__(self, raw: Kernel[..., R], selector: Selector[S, C]) -> None:
        """Wrap ``raw``; a selector does this when it is called on a kernel."""
        if not callable(raw):
            msg = f"a selector wraps a function, not {raw!r}"
            raise KernelCallError(msg)
        self.raw = raw
        self.selector = selector
        self._parameters = Parameters.of(raw)

    @property
    def __wrapped__(self) -> Kernel[..., R]:
        """The wrapped kernel, for ``inspect`` and documentation tools."""
        return self.raw

    def __call__(self, state: S, config: C, *args: Any, **kwargs: Any) -> R:
        """Extract the kernel's arguments and run it.

        Args:
            state: where ``state.`` paths start.
            config: where ``config.`` paths start.
            *args: go to the kernel's parameters that the selector leaves free, in order (a Loop's batch, say).
            **kwargs: go to the kernel's parameters by name.

        Returns:
            What the kernel returns.

        Raises:
            FieldPathError: a path leads nowhere.
            KernelCallError: a parameter is given twice, or there is none for an argument.
        """
        extracted, named = self.selector.extract(state, config)
        check_not_given_twice(kernel_name(self.raw), named, kwargs)
        if self._parameters is None:
            return self.raw(*extracted, *args, **named, **kwargs)
        by_position, by_name = self._parameters.place(extracted, {**named, **kwargs}, args)
        return self.raw(*by_position, **by_name)


def _outline(value: object) -> str:
    if isinstance(value, tuple):
        return f"a tuple of {len(cast('tuple[Any, ...]', value))}"
    return f"a {type(value).__name__}"
