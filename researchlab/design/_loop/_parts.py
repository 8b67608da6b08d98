"""Do the options of a Loop fit together, and what does it know from one run to the next?"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from researchlab.design._cadence import Cadence, Selector
from researchlab.design._nested import children, flatten_names
from researchlab.errors import ArgumentError

if TYPE_CHECKING:
    from researchlab.design._loop._checkpoints import Checkpoints
    from researchlab.design.orchestrator import Loop

OnNonFinite = Literal["raise", "stop", "ignore"]
ReplicaMetrics = Literal["each", "mean_std"]
Callback = Callable[["Loop[Any, Any]", Mapping[str, Any]], object]

_CALLBACK_EVERY = 100


@dataclasses.dataclass
class Parts:
    """What a Loop does beside taking steps.

    Attributes:
        checkpoints: where they are.
        callbacks: what is called, and when.
        log_selector: which steps the telemetry is shown; None for all.
        render_cadence: when the visualizer renders.
        save_cadence: when a checkpoint is written; None for never.
        progress: whether there is a progress bar, and with which metrics.
        on_nonfinite: what a NaN does.
        can_render: the visualizer has not failed yet.
        has_logged_config: the telemetry has the parameters.
    """

    checkpoints: Checkpoints[Any, Any]
    callbacks: tuple[tuple[Callback, Cadence], ...]
    log_selector: Selector | None
    render_cadence: Cadence
    save_cadence: Cadence | None
    progress: bool | Sequence[str]
    on_nonfinite: OnNonFinite
    can_render: bool = True
    has_logged_config: bool = False

    @property
    def need_metrics(self) -> bool:
        """Whether callbacks or a progress bar look at metrics."""
        return bool(self.callbacks) or bool(self.progress)

    def log_config(self, config: Any, log_params: Callable[[Mapping[str, Any]], None]) -> None:
        """Hand the config over as parameters, once."""
        if not self.has_logged_config:
            # Also where there is nothing to log: a telemetry without a run has to say so before the first step.
            has_values = children(config) is not None
            log_params(flatten_names(config, what="parameter") if has_values else {})
        self.has_logged_config = True


def checked_callbacks(callbacks: object) -> tuple[tuple[Callback, Cadence], ...]:
    """Return callbacks with their cadences.

    Raises:
        ArgumentError: one is neither a function nor a pair.
    """
    if not isinstance(callbacks, Iterable):
        msg = f"callbacks must be a list of functions (loop, metrics), not {callbacks!r}: say callbacks=[...]"
        raise ArgumentError(msg)
    return tuple(_callback(entry) for entry in cast("Iterable[object]", callbacks))


def checked_progress(progress: Sequence[str] | bool) -> Sequence[str] | bool:  # noqa: FBT001 - as the Loop takes it
    """Return it, unless it is one name: a text is a list of its letters.

    Raises:
        ArgumentError: it is.
    """
    if isinstance(progress, str):
        msg = f"progress={progress!r} must be True or a list of metric names: say progress=[{progress!r}]"
        raise ArgumentError(msg)
    return progress


def checked_choice(name: str, value: object, choices: Any) -> None:
    """Check that an option is one of those of a ``Literal``.

    Raises:
        ArgumentError: it is not.
    """
    if value not in get_args(choices):
        msg = f"{name} must be one of {', '.join(map(repr, get_args(choices)))}; it is {value!r}"
        raise ArgumentError(msg)


def check_needs(option: str, value: object, needed: object, remedy: str) -> None:
    """Check that what an option needs is there.

    Raises:
        ArgumentError: it is not.
    """
    if value is not None and needed is None:
        msg = f"{option}={value!r} needs a {remedy}"
        raise ArgumentError(msg)


def check_kind(name: str, value: object, methods: Sequence[str]) -> None:
    """Check that a part has the methods that a Loop calls: it may be of another kind, or a class.

    Raises:
        ArgumentError: it has not.
    """
    if value is not None and (isinstance(value, type) or not all(hasattr(value, method) for method in methods)):
        what = f"the class {value.__name__}: make one of it, {value.__name__}(...)" if isinstance(value, type) else (
            f"a {type(value).__name__}, which has no {methods[0]}"
        )  # fmt: skip
        msg = f"{name} is {what}"
        raise ArgumentError(msg)


def _callback(entry: object) -> tuple[Callback, Cadence]:
    if callable(entry):
        return cast("Callback", entry), Cadence(every=_CALLBACK_EVERY)
    pair = cast("tuple[Any, ...]", entry) if isinstance(entry, tuple) else ()
    if len(pair) == 2 and callable(pair[0]):  # noqa: PLR2004 - a pair
        return pair[0], Cadence.of("the cadence of a callback", pair[1])
    msg = f"a callback is a function (loop, metrics), or a pair of one and a cadence; it is {entry!r}"
    raise ArgumentError(msg)
