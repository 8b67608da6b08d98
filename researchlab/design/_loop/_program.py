"""What does one compiled step do: unpack the State, call the step function, pack the metrics?"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Final, Generic, cast

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jax.core import Tracer

from researchlab.design._loop._batches import row_of
from researchlab.design._loop._finite import can_be_non_finite, is_finite
from researchlab.design._loop._layout import is_weak
from researchlab.design._loop._steps import note_step, state_and_metrics
from researchlab.design._loop._words import MetricLayout
from researchlab.design._metrics import flatten_metrics
from researchlab.design._typevars import S
from researchlab.errors import StepError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from jax import Array

    from researchlab.design._data import StepDataProvider
    from researchlab.design._loop._layout import StateLayout

#: The words at the start of the ring: rows written, completed steps, whether something is not finite, and what.
ROWS: Final = 0
STEP: Final = 1
BAD: Final = 2
CONTROL: Final = 3

_Carry = tuple["Array", "Array", "tuple[Array, ...]", "Array"]

_NOT_TRACEABLE = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.UnexpectedTracerError,
    jax.errors.NonConcreteBooleanIndexError,
)


@dataclasses.dataclass(frozen=True)
class CompiledMode:
    """How compiled steps are taken.

    Attributes:
        scan_steps: so many in one loop on the device; None: one a call.
        replicas: so many States at once, along a leading axis; None: one.
        replica_metrics: ``"each"`` or ``"mean_std"``.
        check_finite: look for NaN and infinities.
    """

    scan_steps: int | None
    replicas: int | None
    replica_metrics: str
    check_finite: bool


class StepProgram(Generic[S]):
    """The functions that are compiled, and what is known of them once they were traced.

    Attributes:
        metrics: where each metric is in a row of the ring.
        checked: which arrays are looked at for NaN and infinities; None for none, and then no metric either.
        checked_names: what is looked at, in the order of the flags in the ring.
    """

    def __init__(
        self,
        step_fn: Callable[..., Any],
        config: Any,
        provider: StepDataProvider[S] | None,
        layout: StateLayout[S],
        mode: CompiledMode,
        *,
        has_batches: bool,
    ) -> None:
        """Take the parts; nothing is traced yet."""
        self.metrics = MetricLayout(())
        self.checked: Sequence[int] | None = None
        self._check_finite = mode.check_finite
        self.checked_names: tuple[str, ...] = ()
        self._checked_metrics: tuple[str, ...] = ()
        # Bound as it is: a jitted function of the caller would look it up by `==`, for which 1, 1.0 and True are one.
        self._step_fn = _as_plain(step_fn)
        self._config = config
        self._provider = provider
        self._layout = layout
        self._replicas = mode.replicas
        self._replica_metrics = mode.replica_metrics
        self._has_batches = has_batches
        self._mask = 0

    def wrap_after(self, rows: int) -> None:
        """Let the ring have so many rows, a power of two: a later row takes the place of the oldest."""
        self._mask = rows - 1

    @property
    def first_word(self) -> int:
        """Where the first row begins in the ring."""
        return CONTROL + (len(self.checked_names) if self.checked is not None else 0)

    def facts(self) -> Mapping[str, str]:
        """Return what may change bits."""
        return {
            "replicas": "none" if self._replicas is None else f"{self._replicas}, {self._replica_metrics}",
            "checked for NaN": "no" if self.checked is None else "yes",
        }

    def build(self, arrays: tuple[Array, ...], constants: Any, row: Any, *, step: int) -> tuple[Array, ...]:
        """Trace one step, and find out what its metrics are.

        Args:
            arrays: what the State is made of.
            constants: of the data provider.
            row: what one step gets of the data.
            step: the number of completed steps.

        Returns:
            The arrays, those without their weak type that a step returns without it.

        Raises:
            StepError: the step function cannot be traced, or changes what must stay.
            MetricError: a metric is not a scalar.
        """
        try:
            arrays = self._settled(arrays, constants, row, step)
        except BaseException:
            self._layout.forget_moved()
            raise
        if self._check_finite:
            self.checked = [index for index, array in enumerate(arrays) if can_be_non_finite(array)]
            self._checked_metrics = tuple(
                column.name for column in self.metrics.columns if jnp.issubdtype(column.dtype, jnp.inexact)
            )
            leaves = [f"leaf {self._layout.paths[index]}" for index in self.checked]
            self.checked_names = (*leaves, *(f"metric {name!r}" for name in self._checked_metrics))
        return arrays

    def _settled(self, arrays: tuple[Array, ...], constants: Any, row: Any, step: int) -> tuple[Array, ...]:
        """Trace until a step returns what it is given."""
        while True:
            after = self._trace(arrays, constants, row, step)
            if self._layout.moved:
                arrays = self._layout.with_moved(arrays)
                if self._replicas is not None:
                    self._layout.check_replicas(arrays, self._replicas)
                continue
            pairs = enumerate(zip(arrays, after, strict=True))
            weak = [index for index, (old, new) in pairs if is_weak(old) and not is_weak(new)]
            if not weak:
                return arrays
            self._layout.make_strong(weak)
            arrays = tuple(
                lax.convert_element_type(array, array.dtype) if index in weak else array
                for index, array in enumerate(arrays)
            )

    def step(self, arrays: tuple[Array, ...], ring: Array, constants: Any, row: Any) -> tuple[tuple[Array, ...], Array]:
        """Take one step; compiled."""
        if self.checked is not None:
            rows = jax.tree_util.tree_map(lambda leaf: jnp.asarray(leaf)[None], row)
            return self.chunk(arrays, ring, jnp.int32(1), constants, rows)
        position = ring[ROWS].astype(jnp.int32) & self._mask
        arrays, metrics = self._one(arrays, ring[STEP].astype(jnp.int32), constants, row)
        words = self.metrics.pack(metrics)
        # One scatter: a second update of the same buffer would make XLA copy it.
        where = CONTROL + position * self.metrics.words + jnp.arange(self.metrics.words, dtype=jnp.int32)
        index = jnp.concatenate([jnp.array([ROWS, STEP], jnp.int32), where])
        values = jnp.concatenate([ring[:2] + jnp.uint32(1), words])
        ring = ring.at[index].set(values, unique_indices=True, indices_are_sorted=True, mode="promise_in_bounds")
        return arrays, ring

    def chunk(
        self, arrays: tuple[Array, ...], ring: Array, count: Array, constants: Any, rows: Any
    ) -> tuple[tuple[Array, ...], Array]:
        """Take ``count`` steps in one loop, which is the same program for each count; compiled."""

        def body(carry: _Carry) -> _Carry:
            index, counters, arrays, ring = carry
            position, step = counters.astype(jnp.int32)
            arrays, metrics = self._one(arrays, step, constants, row_of(rows, index))
            where = self.first_word + (position & self._mask) * self.metrics.words
            ring = lax.dynamic_update_slice(ring, self.metrics.pack(metrics), (where,))
            return index + 1, counters + jnp.uint32(1), arrays, self._flagged(ring, arrays, metrics)

        def goes_on(carry: _Carry) -> Array:
            index, _, _, ring = carry
            return index < count if self.checked is None else (index < count) & (ring[BAD] == 0)

        # Carried as one array: XLA would keep a copy of the whole ring for counters that it could read there again.
        counters = lax.dynamic_slice(ring, (jnp.int32(ROWS),), (2,))
        _, counters, arrays, ring = lax.while_loop(goes_on, body, (jnp.int32(0), counters, arrays, ring))
        return arrays, lax.dynamic_update_slice(ring, counters, (jnp.int32(ROWS),))

    def _flagged(self, ring: Array, arrays: tuple[Array, ...], metrics: Mapping[str, Any]) -> Array:
        if self.checked is None or not self.checked_names:
            return ring
        flags = [is_finite(arrays[index]) for index in self.checked]
        flags += [is_finite(metrics[name]) for name in self._checked_metrics]
        found = ~jnp.stack(flags)
        words = jnp.concatenate([found.any()[None], found]).astype(jnp.uint32)
        return lax.dynamic_update_slice(ring, words, (jnp.int32(BAD),))

    def _trace(self, arrays: tuple[Array, ...], constants: Any, row: Any, step: int) -> tuple[Any, ...]:
        self._layout.moved.clear()

        def traced(arrays: tuple[Array, ...], row: Any) -> tuple[Array, ...]:
            after, metrics = self._one(arrays, jnp.int32(0), constants, row)
            self.metrics = MetricLayout.of(metrics)
            return after

        try:
            return jax.eval_shape(traced, arrays, row)
        except _NOT_TRACEABLE as error:
            first = str(error).strip().splitlines()[0].rstrip(".")
            numbers = self._layout.numbers()
            changed = f" The step changes the Python numbers {', '.join(numbers)}, so that they are." if numbers else ""
            msg = (
                f"step_fn cannot be compiled, because it needs a value that is only known when it runs: {first}."
                f" The arrays of the State are such values, and those of the batch.{changed}"
                " Use jax.numpy, jax.lax.cond and jnp.where instead of NumPy, `if` and float() on them, or leave out"
                " jit=True and scan_steps= to call it as it is."
            )
            raised = StepError(msg)
            note_step(raised, step + 1)
            raise raised from error

    def _one(
        self, arrays: tuple[Array, ...], step: Array, constants: Any, row: Any
    ) -> tuple[tuple[Array, ...], dict[str, Any]]:
        """Take one step; traced. A metric that the step did not compute is a number of the host."""
        known: dict[str, Any] = {}

        def single(arrays: tuple[Array, ...]) -> tuple[tuple[Array, ...], dict[str, Array]]:
            state = self._layout.traced(arrays)
            batch = row
            if self._provider is not None:
                batch = self._provider.traced_batch(constants, row, state, step)
            elif not self._has_batches:
                batch = None
            result: object = self._step_fn(state, self._config, batch)
            after, metrics = state_and_metrics(result)
            flat = flatten_metrics(metrics, None)
            known.update(flat)
            return self._layout.taken_apart(after, arrays), {k: v for k, v in flat.items() if isinstance(v, Tracer)}

        if self._replicas is None:
            after, _ = single(arrays)
            return after, known
        after, computed = jax.vmap(single)(arrays)
        return after, _over_replicas({**known, **computed}, self._replicas, self._replica_metrics)


def _over_replicas(metrics: Mapping[str, Any], replicas: int, how: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, values in metrics.items():
        is_same = not isinstance(values, Tracer)
        if how == "each":
            flat.update({f"{name}/{index}": values if is_same else values[index] for index in range(replicas)})
        elif is_same:
            flat[f"{name}/mean"], flat[f"{name}/std"] = float(values), 0.0
        else:
            wide = values if jnp.issubdtype(values.dtype, jnp.inexact) else values.astype(jnp.float32)
            flat[f"{name}/mean"], flat[f"{name}/std"] = wide.mean(axis=0), wide.std(axis=0)
    return flat


def _as_plain(step_fn: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function inside of ``jax.jit`` or ``eqx.filter_jit``."""
    while isinstance(step_fn, type(jax.jit(lambda: None))) or type(step_fn) is type(eqx.filter_jit(lambda: None)):
        inner = getattr(step_fn, "__wrapped__", None)
        if inner is None:
            break
        step_fn = cast("Callable[..., Any]", inner)
    return step_fn
