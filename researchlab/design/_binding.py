"""Which of a kernel's parameters does each argument go to?"""

from __future__ import annotations

import dataclasses
import inspect
from typing import TYPE_CHECKING, Any

from researchlab.design._keys import did_you_mean
from researchlab.errors import KernelCallError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence


@dataclasses.dataclass(frozen=True)
class Parameters:
    """What a kernel takes, read off its signature once.

    Attributes:
        kernel: the kernel's name, for messages.
        positional: names that can be filled by position, in order.
        keyword_only: names that can be filled by name only.
        required_keyword_only: those of them without a default.
        takes_args: the kernel has ``*args``.
        takes_kwargs: the kernel has ``**kwargs``.
    """

    kernel: str
    positional: tuple[str, ...]
    keyword_only: tuple[str, ...]
    required_keyword_only: tuple[str, ...]
    takes_args: bool
    takes_kwargs: bool

    @classmethod
    def of(cls, kernel: Callable[..., Any]) -> Parameters | None:
        """Read the signature of a kernel; None for the few builtins that have none."""
        try:
            parameters = inspect.signature(kernel).parameters.values()
        except (ValueError, TypeError):
            return None

        def named(*kinds: Any) -> list[inspect.Parameter]:
            return [parameter for parameter in parameters if parameter.kind in kinds]

        keyword_only = named(inspect.Parameter.KEYWORD_ONLY)
        return cls(
            kernel=kernel_name(kernel),
            positional=_names(named(inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)),
            keyword_only=_names(keyword_only),
            required_keyword_only=_names(one for one in keyword_only if one.default is inspect.Parameter.empty),
            takes_args=bool(named(inspect.Parameter.VAR_POSITIONAL)),
            takes_kwargs=bool(named(inspect.Parameter.VAR_KEYWORD)),
        )

    def check_names(self, names: Iterable[str]) -> None:
        """Raise KernelCallError for a name that the kernel has no parameter for."""
        known = (*self.positional, *self.keyword_only)
        for name in names:
            if name not in known and not self.takes_kwargs:
                msg = (
                    f"kernel {self.kernel!r} has no parameter {name!r}: it takes ({', '.join(known)})."
                    f"{did_you_mean(name, known)}"
                )
                raise KernelCallError(msg)

    def place(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], further: Sequence[Any]
    ) -> tuple[list[Any], dict[str, Any]]:
        """Put ``further`` positional arguments into the parameters that the others leave free, in order.

        Whatever can be passed by position is, because ``jax.vmap(in_axes=...)`` and ``jax.grad(argnums=...)`` look at
        positions. A required keyword-only parameter is filled after all positional ones, where there is no ``*args``.

        Raises:
            KernelCallError: a parameter is given twice or unknown, or there are more arguments than free parameters.
        """
        self.check_names(kwargs)
        filled = dict(zip(self.positional, args, strict=False))
        for name in kwargs:
            if name in filled:
                msg = f"kernel {self.kernel!r} is given {name!r} twice, by position and by name: leave one of them out"
                raise KernelCallError(msg)
        filled.update(kwargs)
        free = [name for name in self.positional if name not in filled]
        if not self.takes_args:
            free += [name for name in self.required_keyword_only if name not in filled]
        filled.update(zip(free, further, strict=False))
        overflow = [*args[len(self.positional) :], *further[len(free) :]]
        if overflow and not self.takes_args:
            raise self._too_many(filled, len(overflow))
        by_position: list[Any] = []
        for name in self.positional:
            if name not in filled:
                break
            by_position.append(filled.pop(name))
        return [*by_position, *overflow], filled

    def _too_many(self, filled: Mapping[str, Any], surplus: int) -> KernelCallError:
        given = ", ".join(filled)
        return KernelCallError(
            f"kernel {self.kernel!r} has no free parameter for {surplus} positional argument(s):"
            f" ({given}) are given already. A Loop passes its batch (None without a data provider) as one:"
            f" write `def {self.kernel}({given}, batch)`."
        )


def check_not_given_twice(kernel: str, extracted: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Raise KernelCallError for a keyword argument that is both extracted and given in the call."""
    twice = sorted(extracted.keys() & given.keys())
    if twice:
        names = ", ".join(map(repr, twice))
        msg = f"kernel {kernel!r} is given {names} twice, by its selector and in the call: leave it out of the call"
        raise KernelCallError(msg)


def kernel_name(kernel: object) -> str:
    """Return the name of a kernel, for messages."""
    return getattr(kernel, "__name__", None) or type(kernel).__name__


def _names(parameters: Iterable[inspect.Parameter]) -> tuple[str, ...]:
    return tuple(parameter.name for parameter in parameters)
