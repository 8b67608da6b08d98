"""How do steps, data, telemetry, checkpoints and pictures become one run?"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, cast

from researchlab._recording import current
from researchlab.design._metrics import flatten_metrics
from researchlab.design._nested import children, flatten_names
from researchlab.design._reporter import Reporter, source_name
from researchlab.design._typevars import C, S
from researchlab.errors import ArgumentError, ResearchlabWarning, StepError

if TYPE_CHECKING:
    from researchlab._recording import Recorder
    from researchlab.design._data import DataProvider
    from researchlab.design._persister import Persister
    from researchlab.design._telemetry import Telemetry
    from researchlab.design._visualizer import Visualizer

_PAIR = 2


class Loop(Generic[S, C]):
    """Runs a step function over a State, and drives telemetry, checkpoints and pictures.

    ``loop.step`` is the number of completed steps. The metrics of a step carry the number that it completed: the first
    step's have step 1, and the checkpoint ``step-0000000100.eqx`` holds the State that the metrics of step 100 came
    with.

    The step function is called as given: nothing is compiled or traced that the caller did not. While an
    ExperimentTracker is active, the metrics of each step, with their bits, and the State at the end of each ``run`` go
    to that run's trace.

    Attributes:
        state: the current State.
        config: the configuration.
        step: the number of completed steps.

    Example:
        >>> loop = Loop(config, initial_state, step_fn, batches, MLFlowTelemetry())
        >>> with ExperimentTracker("digits"):
        ...     final_state = loop.run(1000)
    """

    def __init__(  # noqa: PLR0913 - the parts are the contract
        self,
        config: C,
        initial_state: S,
        step_fn: Callable[[S, C, Any], tuple[S, Mapping[str, Any]]],
        data_provider: DataProvider[S] | Iterable[Any] | None,
        telemetry: Telemetry[S, C] | None = None,
        persister: Persister[S, C] | None = None,
        visualizer: Visualizer[S] | None = None,
        *,
        save_every: int | None = None,
        checkpoint_dir: Path | str | None = None,
        render_every: int | None = None,
    ) -> None:
        """Put the parts together; nothing runs yet.

        Args:
            config: handed to each step; its values are logged as parameters at the first ``run``.
            initial_state: the State to start from.
            step_fn: ``step_fn(state, config, batch) -> (new_state, metrics)``. Metrics map a name to a real scalar;
                nested mappings get dotted names, None stands for no metrics.
            data_provider: gives a batch a step. Any iterable will do; None, for a simulation, makes each batch None.
            telemetry: is shown the metrics of each step.
            persister: writes and reads checkpoints.
            visualizer: renders States; closing it is up to the caller.
            save_every: write a checkpoint after each so many steps, counted over all runs. Needs ``persister`` and
                ``checkpoint_dir``.
            checkpoint_dir: the folder of these checkpoints, ``step-0000000100.eqx`` and so on; made when it is missing.
            render_every: render after each so many steps, counted over all runs; each step when not given. Needs
                ``visualizer``.

        Raises:
            ArgumentError: a part is missing that another one needs, or is not what it should be.
        """
        if not callable(step_fn):
            msg = f"step_fn must be a function (state, config, batch) -> (new_state, metrics), not {step_fn!r}"
            raise ArgumentError(msg)
        if data_provider is not None and not _gives_batches(data_provider):
            kind = type(data_provider).__name__
            msg = f"data_provider must be a DataProvider, an iterable of batches or None, not a {kind}"
            raise ArgumentError(msg)
        if save_every is not None and (persister is None or checkpoint_dir is None):
            msg = (
                f"save_every={save_every} needs a persister and a checkpoint_dir to write to:"
                ' pass `persister=EquinoxPersister(), checkpoint_dir="checkpoints"`'
            )
            raise ArgumentError(msg)
        if checkpoint_dir is not None and save_every is None:
            msg = f"checkpoint_dir={str(checkpoint_dir)!r} alone writes no checkpoint: add, say, `save_every=100`"
            raise ArgumentError(msg)
        if render_every is not None and visualizer is None:
            msg = f"render_every={render_every} needs a visualizer: pass `visualizer=...`"
            raise ArgumentError(msg)
        self.config = config
        self.state = initial_state
        self.step = 0
        self.step_fn = step_fn
        self.data_provider = data_provider
        self.telemetry = telemetry
        self.persister = persister
        self.visualizer = visualizer
        self.save_every = None if save_every is None else _whole_number("save_every", save_every, at_least=1)
        self.checkpoint_dir = None if checkpoint_dir is None else Path(checkpoint_dir)
        self.render_every = 1 if render_every is None else _whole_number("render_every", render_every, at_least=1)
        self._batches: Iterator[Any] | None = None
        self._has_logged_config = False
        self._can_render = visualizer is not None

    def run(self, num_steps: int) -> S:
        """Take up to ``num_steps`` further steps; the end of the data ends the run early.

        Whatever ends it (an exception and Ctrl-C included), the metrics so far are sent and the State of the last
        completed step is handed to the active run. An exception of the step function keeps its type and gets a note
        with the step's number.

        Args:
            num_steps: how many steps to take, 0 or more. A second call continues where the first one ended.

        Returns:
            The State after the last step, which is also ``loop.state``.

        Raises:
            ArgumentError: ``num_steps`` is not a whole number, or negative.
            StepError: the step function did not return ``(new_state, metrics)``.
            MetricError: a metric is not a real scalar.
        """
        count = _whole_number("num_steps", num_steps, at_least=0)
        recorder = current()
        source = None if recorder is None else source_name(recorder, self)
        reporter = Reporter(recorder, self.telemetry)
        try:
            self._log_config(reporter)
            for _ in range(count):
                try:
                    batch = self._next_batch()
                except StopIteration:
                    break
                reporter.metrics(self._advance(batch), self.step)
                self._render()
                # DO NOT CHANGE THE ORDER: a checkpoint is written before the next batch is fetched, so that the
                # position in the data and the step agree.
                self._save_when_due()
        finally:
            try:
                reporter.close()
            finally:
                if recorder is not None and source is not None:
                    self._record_state(recorder, source)
        return self.state

    def save_checkpoint(self, path: Path | str) -> None:
        """Write the current State, config and step to ``path`` with the persister.

        Raises:
            ArgumentError: the Loop has no persister.
            CheckpointError: the State cannot be stored.
        """
        self._persister().save(self.state, self.config, self.step, Path(path))

    def load_checkpoint(self, path: Path | str) -> None:
        """Continue from a checkpoint: State, config and step become what the persister reads.

        EquinoxPersister keeps the State only: with it the config stays and the step count restarts at 0. The data
        provider is left where it is.

        Raises:
            ArgumentError: the Loop has no persister.
            CheckpointNotFoundError: there is no such file.
            CheckpointError: the file is damaged, or of another structure.
        """
        self.state, self.config, self.step = self._persister().load(Path(path), self.state, self.config)

    def _next_batch(self) -> Any:
        provider = self.data_provider
        if provider is None:
            return None
        if hasattr(provider, "get_batch"):
            return cast("DataProvider[S]", provider).get_batch(self.state)
        if self._batches is None:
            self._batches = iter(provider)
        return next(self._batches)

    def _advance(self, batch: Any) -> dict[str, Any]:
        """Take one step and return its checked metrics."""
        number = self.step + 1
        try:
            result: object = self.step_fn(self.state, self.config, batch)
            state, metrics = _state_and_metrics(result)
            flat = flatten_metrics(metrics, number)
        except Exception as error:
            error.add_note(f"In step {number} of a researchlab Loop; loop.state is the State after step {self.step}.")
            raise
        self.state = cast("S", state)
        self.step = number
        return flat

    def _log_config(self, reporter: Reporter) -> None:
        if not self._has_logged_config:
            # Also where there is nothing to log: a telemetry without a run has to say so before the first step.
            has_values = children(self.config) is not None
            reporter.params(flatten_names(self.config, what="parameter") if has_values else {})
        self._has_logged_config = True

    def _render(self) -> None:
        if self.visualizer is None or not self._can_render or self.step % self.render_every:
            return
        try:
            self.visualizer.render(self.state)
        except Exception as error:  # noqa: BLE001 - a picture is never worth the run
            self._can_render = False
            _warn(f"nothing is rendered from step {self.step} on: {type(self.visualizer).__name__} raised {error!r}")

    def _save_when_due(self) -> None:
        if self.save_every is not None and self.checkpoint_dir is not None and self.step % self.save_every == 0:
            self.save_checkpoint(self.checkpoint_dir / f"step-{self.step:010d}.eqx")

    def _record_state(self, recorder: Recorder, source: str) -> None:
        try:
            # Without a step it is the final State, until a further run() replaces it.
            recorder.record_state(self.state, None, source=source)
        except Exception as error:  # noqa: BLE001 - it must not hide what ended the run
            _warn(f"the State after step {self.step} is not in the run's trace: {error!r}")

    def _persister(self) -> Persister[S, C]:
        if self.persister is None:
            msg = "this Loop has no persister: pass `persister=EquinoxPersister()` when you make it"
            raise ArgumentError(msg)
        return self.persister


def _state_and_metrics(result: object) -> tuple[object, Mapping[str, Any]]:
    wanted = "step_fn must return (new_state, metrics)"
    if not isinstance(result, tuple | list) or len(cast("tuple[object, ...]", result)) != _PAIR:
        size = f" of {len(cast('tuple[object, ...]', result))}" if isinstance(result, tuple | list) else ""
        msg = f"{wanted}; it returned a {type(result).__name__}{size}: {result!r:.200}"
        raise StepError(msg)
    state, metrics = cast("tuple[object, object]", result)
    if metrics is None:
        return state, {}
    if not isinstance(metrics, Mapping):
        kind = type(metrics).__name__
        msg = f"{wanted} with metrics as a dict of name to number, {{}} for none; they are a {kind}: {metrics!r:.200}"
        raise StepError(msg)
    return state, cast("Mapping[str, Any]", metrics)


def _gives_batches(provider: object) -> bool:
    return hasattr(provider, "get_batch") or hasattr(provider, "__iter__") or hasattr(provider, "__getitem__")


def _whole_number(name: str, value: object, *, at_least: int) -> int:
    try:
        number = operator.index(cast("int", value))
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or number < at_least:
        msg = f"{name} must be a whole number of at least {at_least}; it is {value!r}"
        raise ArgumentError(msg)
    return number


def _warn(message: str) -> None:
    warnings.warn(message, ResearchlabWarning, stacklevel=4)
