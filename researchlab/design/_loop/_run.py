"""In which order does one ``Loop.run`` do things?"""

from __future__ import annotations

import contextlib
import dataclasses
import functools as ft
import logging
import math
import signal
import time
import warnings
from typing import TYPE_CHECKING, Any, Generic

import jax

from researchlab._recording import current, record_artifact, record_execution
from researchlab.design._cadence import Timer
from researchlab.design._loop._finite import first_places
from researchlab.design._loop._pace import Pace
from researchlab.design._loop._processes import Decision, processes
from researchlab.design._loop._progress import Progress
from researchlab.design._loop._signals import StopSignals
from researchlab.design._telemetries._reporter import Reporter, source_name
from researchlab.design._typevars import C, S
from researchlab.errors import NonFiniteError, ResearchlabWarning

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from researchlab.design._cadence import Cadence
    from researchlab.design._checkpoints._persister import Checkpoint
    from researchlab.design._loop._parts import Callback, Parts
    from researchlab.design._loop._profile import Profile
    from researchlab.design._loop._steps import Steps
    from researchlab.design.orchestrator import Loop

_log = logging.getLogger(__name__)
_COLLECT_SECONDS = 1.0
_LOOK_UP_SECONDS = 0.5


@dataclasses.dataclass
class Event:
    """Something that is due now and then.

    Attributes:
        timer: when.
        fire: what.
        needs_metrics: it looks at the metrics of the last step.
    """

    timer: Timer
    fire: Callable[[], object]
    needs_metrics: bool = False


class LoopRun(Generic[S, C]):
    """One run of a Loop, from its first step to its last."""

    def __init__(
        self,
        loop: Loop[S, C],
        parts: Parts,
        steps: Steps[S],
        *,
        target: int,
        profile: Profile,
        saves_at_end: bool,
        checkpoint: Callable[[], Checkpoint[S, C]],
        hand_back: Callable[[Steps[S]], None],
    ) -> None:
        """Put together what the run needs.

        Args:
            loop: is shown to callbacks.
            parts: what is done beside taking steps.
            steps: how steps are taken.
            target: the number of steps to come to.
            profile: what is profiled.
            saves_at_end: write a checkpoint also where the run ends as it should.
            checkpoint: returns what a checkpoint of the current step holds.
            hand_back: gives the Loop what was computed.
        """
        self.stop_reason: str | None = None
        self.steps = steps
        self._loop = loop
        self._parts = parts
        self._checkpoint = checkpoint
        self._hand_back = hand_back
        self._target = target
        self._profile = profile
        self._saves_at_end = saves_at_end
        self._processes = processes()
        self._recorder = current() if self._processes.is_first else None
        self._source = None if self._recorder is None else source_name(self._recorder, loop)
        self._reporter = Reporter(
            self._recorder, loop.telemetry if self._processes.is_first else None, select=parts.log_selector
        )
        # Several processes must take the same steps, whatever their clocks say.
        self._seconds = _LOOK_UP_SECONDS if self._processes.count == 1 else math.inf
        self._pace = Pace()
        self._signals = StopSignals()
        self._progress: Progress | None = None
        self._has_facts = False
        self._was_stopped = self._ended_together = False
        self._listens = self._recorder is not None or loop.telemetry is not None or parts.need_metrics
        self._is_recorded = self._recorder is not None
        self._can_render = loop.visualizer is not None and self._processes.is_first
        self._events = list(self._make_events(time.monotonic()))
        self._last_collect = time.monotonic()

    @property
    def metrics(self) -> Mapping[str, Any]:
        """The metrics of the last step."""
        return self._reporter.latest

    def run(self) -> None:
        """Take the steps."""
        self._log_config()
        progress = self._parts.progress
        if progress and self._processes.is_first:
            names = None if progress is True else list(progress)
            self._progress = Progress(start=self.steps.step, end=self._target, names=names)
        with self._signals:
            try:
                self._profile.at(self.steps.step)
                self._go()
                # In here: a second Ctrl-C does not wait for the last checkpoint.
                if (self._was_stopped or self._saves_at_end) and self.steps.non_finite is None:
                    self._save(ended=None if self._signals.received is not None else self.stop_reason)
                self._parts.checkpoints.persister.wait()
                self._tell_of_signal()
            finally:
                self._close()

    def _go(self) -> None:
        while True:
            decision = self._agree()
            self._was_stopped = decision.stop
            if decision.told:
                self._signals.pass_on(signal.SIGTERM)
            if decision.stop or decision.steps == 0 or self.steps.at_end:
                self._ended_together = True
                return
            began = time.monotonic()
            before = self.steps.step
            self.steps.advance(decision.steps, self._done, seconds=self._seconds)
            now = time.monotonic()
            self._pace.note(self.steps.step - before, now - began)
            if self.steps.step > before:
                self._after(decision, now)
            if self.steps.non_finite is not None:
                self._end_non_finite()
                return

    def _agree(self) -> Decision:
        """Return how far to go: to the next event, and not longer than a signal may wait."""
        step, now = self.steps.step, time.monotonic()
        ahead = self._target - step
        seconds = _COLLECT_SECONDS
        for event in self._events:
            ahead = min(ahead, event.timer.cadence.next_step(step) - step)
            seconds = min(seconds, event.timer.seconds_left(now))
        ahead = min(ahead, self._profile.next_step(step) - step, self.steps.room)
        length = self._pace.length(ahead, seconds=seconds) if ahead > 0 else 0
        if length > self.steps.chunk:
            length -= length % self.steps.chunk  # whole chunks
        told = self._signals.received is not None
        due = tuple(event.timer.seconds_left(now) == 0.0 for event in self._events)
        proposal = Decision(
            steps=length,
            stop=told or self.stop_reason is not None,
            told=told,
            collect=now - self._last_collect >= _COLLECT_SECONDS,
            due=due,
            recorded=self._recorder is not None,
        )
        return self._processes.agree(proposal, step=step)

    def _done(self, flat: Mapping[str, Any], step: int) -> None:
        self._loop.step = step
        self._reporter.metrics(flat, step)

    def _after(self, decision: Decision, now: float) -> None:
        """Do what is due.

        DO NOT CHANGE THE ORDER: a callback sees the metrics of its step, and a checkpoint is written before the next
        batch is fetched, so that the position in the data and the step agree.
        """
        step = self.steps.step
        self._loop.step = step
        self._is_recorded = decision.recorded
        if not self._has_facts:
            self._has_facts = True
            self._record_facts()
        due = [
            event
            for event, by_clock in zip(self._events, decision.due, strict=True)
            if event.timer.is_due(step, now, by_clock=by_clock if self._processes.count > 1 else None)
        ]
        shows = self._progress is not None
        if decision.collect or self.steps.room == 1 or any(event.needs_metrics for event in due):
            self._collect(now)
        for event in due:
            event.fire()
        self._profile.at(step)
        if shows and self._progress is not None:
            self._progress.update(step, self.metrics)

    def _collect(self, now: float) -> None:
        self._last_collect = now
        block = self.steps.collect() if self._listens else None
        if block is not None:
            self._reporter.block(block)

    def _make_events(self, now: float) -> Any:
        loop = self._loop

        def event(cadence: Cadence, fire: Callable[[], object], *, needs_metrics: bool = False) -> Event:
            return Event(Timer(cadence, now=now), fire, needs_metrics)

        for function, cadence in self._parts.callbacks:
            yield event(cadence, ft.partial(self._call, function), needs_metrics=True)
        if loop.visualizer is not None:
            yield event(self._parts.render_cadence, self._render)
        if self._parts.save_cadence is not None:
            yield event(self._parts.save_cadence, self._save)

    def _call(self, function: Callback) -> None:
        try:
            function(self._loop, dict(self.metrics))
        except Exception as error:
            name = getattr(function, "__qualname__", repr(function))
            error.add_note(f"In the callback {name} after step {self.steps.step} of a researchlab Loop.")
            raise

    def _render(self) -> None:
        visualizer = self._loop.visualizer
        if visualizer is None or not self._can_render or not self._parts.can_render:
            return
        try:
            visualizer.render(self.steps.state())
        except Exception as error:  # noqa: BLE001 - a picture is never worth the run
            self._parts.can_render = False
            name = type(visualizer).__name__
            _warn(f"nothing is rendered from step {self.steps.step} on: {name} raised {error!r}")

    def _save(self, *, ended: str | None = None) -> None:
        if self._parts.checkpoints.folder is not None:
            self._parts.checkpoints.save(dataclasses.replace(self._checkpoint(), ended=ended))

    def _end_non_finite(self) -> None:
        found = self.steps.non_finite
        assert found is not None
        what = f"{', '.join(found.names)} of step {found.step} is not finite"
        self.stop_reason = what
        if self._parts.on_nonfinite == "raise":
            places = first_places(self.steps.state(), found.names)
            msg = (
                f"{what}: {places or 'a NaN or an infinity'}. loop.state is the State that this step returned;"
                " pass on_nonfinite='stop' or 'ignore' to go on without this error"
            )
            raise NonFiniteError(msg)
        _warn(f"the run stops: {what}")

    def _tell_of_signal(self) -> None:
        if self._signals.received is not None:
            folder = self._parts.checkpoints.folder
            where = "" if folder is None else f", with a checkpoint in {folder}: run(..., resume='auto') goes on"
            name = signal.Signals(self._signals.received).name
            _log.warning("%s: the run stops after step %d%s", name, self.steps.step, where)

    def _log_config(self) -> None:
        if self._processes.is_first:
            self._parts.log_config(self._loop.config, self._reporter.params)

    def _record_facts(self) -> None:
        if self._recorder is not None and self._source is not None:
            facts = {**self.steps.facts(), "processes": str(self._processes.count)}
            record_execution(self._recorder, facts, source=self._source)

    def _close(self) -> None:
        """Hand over what there is, whatever ended the run."""
        with contextlib.ExitStack() as stack:
            stack.callback(self._record_files)
            stack.callback(self._record_state)
            stack.callback(self._wait_for_checkpoints)
            stack.callback(self._reporter.close)
            stack.callback(self._close_progress)
            stack.callback(self._collect_rest)
            stack.callback(self._profile.close)

    def _collect_rest(self) -> None:
        try:
            block = self.steps.collect() if self._listens else None
        except Exception as error:  # noqa: BLE001 - it must not hide what ended the run
            _warn(f"the metrics of the last steps before step {self.steps.step} are lost: {error!r}")
            return
        if block is not None:
            self._reporter.block(block)

    def _wait_for_checkpoints(self) -> None:
        try:
            self._parts.checkpoints.persister.wait()
        except Exception as error:  # noqa: BLE001 - it must not hide what ended the run
            _warn(f"a checkpoint was not written: {error}")

    def _close_progress(self) -> None:
        if self._progress is not None:
            self._progress.close(self.steps.step, self.metrics)

    def _record_state(self) -> None:
        loop = self._loop
        try:
            self._hand_back(self.steps)
            state = loop.state
            if self._is_recorded and self._processes.count > 1 and self._ended_together:
                state = _gathered(state)
            if self._recorder is not None and self._source is not None:
                # Without a step it is the final State, until a further run() replaces it.
                self._recorder.record_state(state, None, source=self._source)
        except Exception as error:  # noqa: BLE001 - it must not hide what ended the run
            _warn(f"the State after step {loop.step} is not in the run's trace: {error!r}")

    def _record_files(self) -> None:
        if self._recorder is None:
            return
        for path in self._profile.files:
            record_artifact(self._recorder, path, folder="profile")
        visualizer = self._loop.visualizer
        if visualizer is None or not self._can_render:
            return
        try:
            for path in visualizer.finish_recording():
                record_artifact(self._recorder, path)
        except Exception as error:  # noqa: BLE001 - a picture is never worth the run
            _warn(f"what {type(visualizer).__name__} recorded is not an artifact of the run: {error!r}")


def _gathered(state: Any) -> Any:
    """Return a State whose arrays each process has whole; waits for all processes."""
    from jax.experimental import multihost_utils

    def gather(leaf: Any) -> Any:
        if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
            return multihost_utils.process_allgather(leaf, tiled=True)
        return leaf

    return jax.tree_util.tree_map(gather, state)


def _warn(message: str) -> None:
    warnings.warn(message, ResearchlabWarning, stacklevel=6)
