"""How are steps taken at the price of a hand-written compiled loop?

The State is taken apart once, its arrays are donated from step to step, and the metrics go into a ring of words on the
device that is fetched now and then. The step is compiled in the same way whoever listens, because another set of
outputs can change the bits of a step.
"""

from __future__ import annotations

import itertools
import math
import time
from typing import TYPE_CHECKING, Any, Generic, cast

import jax
import numpy as np

from researchlab._recording import MetricBlock
from researchlab.design._loop._batches import filled_up, row_of, stacked
from researchlab.design._loop._layout import StateLayout
from researchlab.design._loop._placement import Placement
from researchlab.design._loop._program import BAD, CONTROL, ROWS, STEP, CompiledMode, StepProgram
from researchlab.design._loop._steps import NonFinite, note_step
from researchlab.design._typevars import S
from researchlab.errors import StepError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from jax import Array
    from numpy.typing import NDArray

    from researchlab.design._loop._batches import Batches

_MOST_ROWS = 2**14
_MOST_WORDS = 2**20
_ROWS_AT_ONCE = 1024
_STEPS_A_LOOK = 64  # at the clock
_ENDLESS = 2**62


class CompiledSteps(Generic[S]):
    """Takes compiled steps, one a call or ``scan_steps`` in one compiled loop.

    Attributes:
        listened_to: somebody will ``collect``; otherwise new metrics take the place of old ones.
    """

    def __init__(
        self,
        step_fn: Callable[..., Any],
        config: Any,
        batches: Batches[S],
        state: S,
        step: int,
        mode: CompiledMode,
    ) -> None:
        """Take the parts; the step is compiled at the first ``advance``."""
        self.step = step
        self.at_end = False
        self.non_finite: NonFinite | None = None
        self.chunk = mode.scan_steps or 1
        self.listened_to = True
        self._batches = batches
        # Steps that are on their way when something is found not to be finite are not taken.
        batches.remembers = mode.check_finite and batches.steps is None
        self._scan_steps = mode.scan_steps
        self._config = config
        self._layout = StateLayout(state)
        self._arrays = self._layout.arrays(state)
        if mode.replicas is not None:
            self._layout.check_replicas(self._arrays, mode.replicas)
        self._program = StepProgram(
            step_fn,
            config,
            batches.steps,
            self._layout,
            mode,
            has_batches=not batches.is_empty,
        )
        self._placement = Placement.of(self._arrays)
        self._constants: Any = None
        self._shown: tuple[int, S] | None = None
        self._lost: str | None = None
        self._until = math.inf
        self._ring: Array | None = None
        self._rows = 0
        self._capacity = 1
        self._clock: list[tuple[int, float]] = []
        self._counts: dict[int, Array] = {}
        self._run: Callable[..., tuple[tuple[Array, ...], Array]] | None = None

    def restart(self, state: S, config: Any, step: int) -> bool:
        """Begin another run with what is compiled already; return False where that is for another State or config."""
        if config is not self._config:
            return False
        try:
            self.replace(state)
        except StepError:
            return False
        if not self._layout.has_numbers_of(state):
            return False
        self.step, self.at_end, self.non_finite = step, False, None
        self._rows, self._clock = 0, []
        if self._run is not None:
            self._ring = self._placement.ring(self._control(), self._capacity * self._program.metrics.words)
        return True

    @property
    def room(self) -> int:
        """How many steps' metrics can still be kept; where nobody listens, each row may be written over."""
        return max(1, self._capacity - self._rows) if self.listened_to else _ENDLESS

    def advance(self, count: int, done: Callable[[Mapping[str, Any], int], None], *, seconds: float) -> None:
        """Take up to ``count`` steps."""
        del done
        before = self.step
        self._batches.forget()
        self._until = time.monotonic() + seconds
        try:
            if self._run is None:
                self._build()
            if not self.at_end:
                self._clock.append((self._rows, time.time()))
                self._take(count)
            steps = self._batches.steps
            if steps is not None and steps.num_batches is not None:
                self.at_end = steps.step >= steps.num_batches
            jax.block_until_ready(self._arrays)
        except BaseException as error:
            self._find_state(error, before)
            raise
        finally:
            self._rows += self.step - before
        if self._program.checked is not None and self._ring is not None:
            self._look_for_non_finite(before)
        self._clock.append((self._rows, time.time()))

    def collect(self) -> MetricBlock | None:
        """Fetch the metrics of the steps since the last time."""
        rows, clock = self._rows, self._clock
        if not rows or self._ring is None:
            return None
        words = self._placement.fetch(self._ring)
        start = self._program.first_word
        layout = self._program.metrics
        kept = words[start : start + rows * layout.words].reshape(rows, layout.words)
        self._rows, self._clock = 0, []
        self._ring = self._placement.ring(self._control(), self._capacity * layout.words)
        if not layout.columns:
            return None
        ends = np.interp(np.arange(1, rows + 1), [row for row, _ in clock], [moment for _, moment in clock])
        return MetricBlock(
            steps=np.arange(self.step - rows + 1, self.step + 1, dtype=np.int64),
            times=ends,
            columns=layout.unpack(kept),
        )

    def state(self) -> S:
        """Return a copy of the State, the same one until the next step."""
        if self._shown is None or self._shown[0] != self.step:
            self._shown = (self.step, self._layout.state(self._arrays, copy=True))
        return self._shown[1]

    def finish(self) -> S:
        """Return the State without a copy.

        Raises:
            StepError: a step failed on the device, and took the State with it.
        """
        if self._lost is not None:
            raise StepError(self._lost)
        return self._layout.state(self._arrays, copy=False)

    def like(self) -> S:
        """Return the State without its values."""
        return self._layout.abstract(self._arrays)

    def replace(self, state: S) -> None:
        """Go on from another State of the same structure."""
        self._arrays = self._placement.settle(self._layout.arrays(state))
        self._shown = None
        self._lost = None

    def facts(self) -> Mapping[str, str]:
        """Return what of this way of execution may change bits."""
        return {
            "mode": "jit" if self._scan_steps is None else f"scan {self._scan_steps}",
            "metrics": str(self._program.metrics) if self._run is not None else "none",
            "data": "none" if self._batches.is_empty else type(self._batches.provider).__name__,
            **self._program.facts(),
            **self._placement.facts(),
        }

    def memory(self) -> Any:
        """Return what XLA says of the memory of the compiled step; None where it says nothing."""
        if self._run is None or self._ring is None:
            self._build()
        if self.at_end:
            return None
        lowered = cast("Any", self._jitted).lower(self._arrays, self._ring, *self._example())
        return lowered.compile().memory_analysis()

    # -- building

    def _build(self) -> None:
        batches = self._batches
        example: Any = ()
        if batches.steps is not None:
            if batches.steps.num_batches is not None and batches.steps.step >= batches.steps.num_batches:
                self.at_end = True
                return
            self._constants = batches.steps.constants()
            example = row_of(batches.steps.rows(batches.steps.step, 1), 0)
        elif not batches.is_empty:
            try:
                example = batches.peek(self.state() if batches.needs_state else None)
            except StopIteration:
                self.at_end = True
                return
        self._arrays = self._program.build(self._arrays, self._constants, example, step=self.step)
        self._arrays = self._placement.settle(self._arrays)
        fitting = max(1, _MOST_WORDS // max(1, self._program.metrics.words))
        self._capacity = 1 << (max(self.chunk, min(_MOST_ROWS, fitting)) - 1).bit_length()
        self._program.wrap_after(self._capacity)
        self._ring = self._placement.ring(self._control(), self._capacity * self._program.metrics.words)
        program = self._program.chunk if self._scan_steps is not None else self._program.step
        self._jitted = jax.jit(
            program, donate_argnums=(0, 1), out_shardings=self._placement.out_shardings(self._arrays)
        )
        self._run = self._jitted

    def _example(self) -> tuple[Any, ...]:
        batches = self._batches
        if batches.steps is not None:
            rows = batches.steps.rows(batches.steps.step, 1)
        elif batches.is_empty:
            rows = ()
        else:
            rows = stacked([batches.peek(self.state() if batches.needs_state else None)], 1)
        if self._scan_steps is None:
            return (self._constants, jax.tree_util.tree_map(lambda leaf: leaf[0], rows))
        return (self._count(1), self._constants, filled_up(rows, self._scan_steps))

    def _control(self) -> NDArray[np.uint32]:
        control = np.zeros(self._program.first_word, np.uint32)
        # What a data provider counts is its own: it may have been used before.
        steps = self._batches.steps
        control[STEP] = (self.step if steps is None else steps.step) % 2**32
        return control

    def _count(self, count: int) -> Array:
        # Kept on the device: handing over a number of the host costs as much as the call.
        if count not in self._counts:
            self._counts[count] = self._placement.replicated(np.int32(count))
        return self._counts[count]

    # -- taking steps

    def _take(self, count: int) -> None:
        if self._scan_steps is not None:
            self._take_chunks(count)
        elif self._batches.is_empty:
            self._take_plain(count)
        else:
            self._take_single(count)

    def _take_plain(self, count: int) -> None:
        run, arrays, ring = cast("Any", self._run), self._arrays, self._ring
        block = self._placement.blocks_each_step
        taken = 0
        try:
            while taken < count and time.monotonic() <= self._until:
                for _ in itertools.repeat(None, min(_STEPS_A_LOOK, count - taken)):
                    arrays, ring = run(arrays, ring, None, ())
                    taken += 1
                    if block:
                        jax.block_until_ready(arrays)
        finally:
            self._arrays, self._ring = arrays, ring
            self.step += taken

    def _take_single(self, count: int) -> None:
        run, steps = cast("Any", self._run), self._batches.steps
        for row in self._rows_of(count) if steps is not None else self._host_batches(count):
            self._arrays, self._ring = run(self._arrays, self._ring, self._constants, row)
            self.step += 1
            if steps is not None:
                steps.seek(steps.step + 1)
            if self._placement.blocks_each_step:
                jax.block_until_ready(self._arrays)
            if time.monotonic() > self._until:
                return

    def _host_batches(self, count: int) -> Any:
        for _ in range(count):
            try:
                yield self._batches.next(self.state() if self._batches.needs_state else None)
            except StopIteration:
                self.at_end = True
                return

    def _rows_of(self, count: int) -> Any:
        steps = cast("Any", self._batches.steps)
        count = self._clipped(count)
        for start in range(0, count, _ROWS_AT_ONCE):
            rows = steps.rows(steps.step, min(_ROWS_AT_ONCE, count - start))
            leaves, treedef = jax.tree_util.tree_flatten(rows)
            for index in range(min(_ROWS_AT_ONCE, count - start)):
                yield treedef.unflatten([leaf[index] for leaf in leaves])

    def _clipped(self, count: int) -> int:
        steps = cast("Any", self._batches.steps)
        if steps.num_batches is None:
            return count
        return min(count, max(0, steps.num_batches - steps.step))

    def _take_chunks(self, count: int) -> None:
        run, batches = cast("Any", self._run), self._batches
        while count > 0 and time.monotonic() <= self._until:
            size = min(count, self.chunk)
            rows: Any = ()
            if batches.steps is not None:
                size = self._clipped(size)
                if not size:
                    return
                rows = filled_up(batches.steps.rows(batches.steps.step, size), self.chunk)
            elif not batches.is_empty:
                drawn = batches.take(size)
                size = len(drawn)
                if not size:
                    self.at_end = True
                    return
                rows = stacked(drawn, self.chunk)
            self._arrays, self._ring = run(self._arrays, self._ring, self._count(size), self._constants, rows)
            self.step += size
            if batches.steps is not None:
                batches.steps.seek(batches.steps.step + size)
            count -= size
            if self._placement.blocks_each_step:
                jax.block_until_ready(self._arrays)

    def _find_state(self, error: BaseException, before: int) -> None:
        """Say on an error in which step it was raised, and find out whether the State is still there."""
        try:
            jax.block_until_ready(self._arrays)
            is_lost = any(array.is_deleted() for array in self._arrays)
        except Exception:  # noqa: BLE001 - the error of the step, once more
            is_lost = True
        if not is_lost:
            note_step(error, self.step + 1)
            return
        steps = f"in or after step {before + 1}"
        self._lost = (
            f"the State is lost: a compiled step, {steps}, was broken off on the device and had taken its arrays."
            " Go on from a checkpoint (loop.load_checkpoint(path), or a new Loop and run(..., resume='auto')), or set"
            " loop.state"
        )
        self.step = before
        error.add_note(
            f"{steps.capitalize()} of a researchlab Loop. Its State is lost, as a compiled step takes the arrays that"
            " it is given; go on from a checkpoint, or leave out jit= and scan_steps= to see which step it is."
        )

    def _look_for_non_finite(self, before: int) -> None:
        control = self._placement.fetch(cast("Any", self._ring)[: self._program.first_word])
        if not control[BAD]:
            return
        taken = (int(control[ROWS]) - (self._rows - (self.step - before))) % 2**32
        surplus = self.step - before - taken
        self._batches.give_back(surplus)
        self.step -= surplus
        self._rows -= surplus
        flags = control[CONTROL:]
        names = tuple(name for name, flag in zip(self._program.checked_names, flags, strict=True) if flag)
        self.non_finite = NonFinite(self.step, names)
