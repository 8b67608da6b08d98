"""How do steps, data, telemetry, checkpoints and pictures become one run?"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, cast

from researchlab._recording import current
from researchlab.design._cadence import Cadence, Selector
from researchlab.design._checkpoints._checkpoint_persister import CheckpointPersister
from researchlab.design._checkpoints._persister import Checkpoint
from researchlab.design._loop._as_given import StepsAsGiven
from researchlab.design._loop._batches import Batches
from researchlab.design._loop._checkpoints import Checkpoints, warn_of_other_config
from researchlab.design._loop._compiled import CompiledSteps
from researchlab.design._loop._dry_run import DryRun, dry_run
from researchlab.design._loop._parts import (
    Callback,
    OnNonFinite,
    Parts,
    ReplicaMetrics,
    check_kind,
    check_needs,
    checked_callbacks,
    checked_choice,
    checked_progress,
)
from researchlab.design._loop._profile import Profile
from researchlab.design._loop._program import CompiledMode
from researchlab.design._loop._run import LoopRun
from researchlab.design._numbers import whole_number
from researchlab.design._typevars import C, S
from researchlab.errors import ArgumentError, StepError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from researchlab.design._checkpoints._persister import Persister
    from researchlab.design._data import DataProvider
    from researchlab.design._loop._steps import Steps
    from researchlab.design._telemetries._telemetry import Telemetry
    from researchlab.design._visualizers._visualizer import Visualizer

_log = logging.getLogger(__name__)

__all__ = ["Cadence", "DryRun", "Loop"]


class Loop(Generic[S, C]):
    """Runs a step function over a State, and drives telemetry, checkpoints and pictures.

    ``loop.step`` is the number of completed steps. The metrics of a step carry the number that it completed: the first
    step's have step 1, and the checkpoint ``step-0000000100`` holds the State that the metrics of step 100 came with.

    The step function is called as given: nothing is compiled or traced that the caller did not, unless ``jit`` or
    ``scan_steps`` is given. While an ExperimentTracker is active, the metrics of each step, with their bits, and the
    State at the end of each ``run`` go to that run's trace.

    Ctrl-C and SIGTERM let the step (of a compiled loop: about a quarter of a second) come to its end, write a
    checkpoint where there is a ``checkpoint_dir``, and then act as they would have. A second one acts at once.

    Attributes:
        state: the current State. In a callback of a compiled Loop it is a copy, which may be kept; setting it lets the
            next step start from there.
        config: the configuration.
        step: the number of completed steps.

    Example:
        >>> loop = Loop(config, initial_state, step_fn, batches, MLFlowTelemetry(), jit=True)
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
        jit: bool = False,
        scan_steps: int | None = None,
        replicas: int | None = None,
        replica_metrics: ReplicaMetrics = "each",
        on_nonfinite: OnNonFinite = "ignore",
        callbacks: Sequence[Callback | tuple[Callback, int | Cadence]] = (),
        log_every: int | Cadence | None = None,
        render_every: int | Cadence | None = None,
        save_every: int | Cadence | None = None,
        checkpoint_dir: Path | str | None = None,
        progress: bool | Sequence[str] = False,
    ) -> None:
        """Put the parts together; nothing runs yet.

        Args:
            config: handed to each step; its values are logged as parameters at the first ``run``.
            initial_state: the State to start from.
            step_fn: ``step_fn(state, config, batch) -> (new_state, metrics)``. Metrics map a name to a real scalar;
                nested mappings get dotted names, None stands for no metrics.
            data_provider: gives a batch a step. Any iterable will do; None, for a simulation, makes each batch None.
            telemetry: is shown the metrics of each step.
            persister: writes and reads checkpoints; a ``CheckpointPersister()`` when not given.
            visualizer: renders States; closing it is up to the caller.
            jit: compile the step. It must be pure: traced once, its side effects happen once. Python numbers in the
                State that a step changes (a counter) are 32-bit arrays inside of it, unless x64 is enabled, and come
                back as the type they were; those that it leaves alone (the rate of a dropout layer) stay numbers.
            scan_steps: take so many compiled steps in one loop on the device, which is faster still for small steps;
                implies ``jit``. Batches of an iterable are stacked.
            replicas: each array of the State has a leading axis of this length, one entry a replica (a seed, say), and
                the step function is mapped over it; the batch is the same for all. Needs ``jit`` or ``scan_steps``.
            replica_metrics: ``"each"``: ``loss/0``, ``loss/1``, ...; ``"mean_std"``: ``loss/mean`` and ``loss/std``.
            on_nonfinite: what happens when a leaf of the new State or a metric is NaN or infinite: ``"raise"`` a
                NonFiniteError, ``"stop"`` the run with a warning, or ``"ignore"`` it. Both name the first step and the
                leaves, and leave the State of that step, of which no checkpoint is written; looking for it takes time.
            callbacks: functions of ``(loop, metrics)``, or pairs of one and a cadence (by default every 100 steps).
                They may read ``loop.state``, and end the run by ``loop.stop()``.
            log_every: which steps the telemetry is shown; all when not given. The active run's trace has them all.
            render_every: after which steps the visualizer renders; each step when not given. Needs ``visualizer``.
            save_every: after which steps a checkpoint is written. Needs ``checkpoint_dir``.
            checkpoint_dir: the folder of the checkpoints, ``step-0000000100`` and so on; made when it is missing. A
                checkpoint is also written when the run is told to stop and, without ``save_every`` or with ``resume``,
                when it ends.
            progress: show a progress bar (not on a terminal: a line a minute), with these metrics or the first few.

        Steps in cadences are counted over all runs.

        Raises:
            ArgumentError: a part is missing that another one needs, or is not what it should be.
        """
        if not callable(step_fn):
            msg = f"step_fn must be a function (state, config, batch) -> (new_state, metrics), not {step_fn!r}"
            raise ArgumentError(msg)
        check_kind("telemetry", telemetry, ["log_metrics", "log_params"])
        check_kind("persister", persister, ["save", "load", "checkpoints"])
        check_kind("visualizer", visualizer, ["render", "finish_recording"])
        checked_choice("on_nonfinite", on_nonfinite, OnNonFinite)
        checked_choice("replica_metrics", replica_metrics, ReplicaMetrics)
        check_needs("save_every", save_every, checkpoint_dir, "checkpoint_dir: say where the checkpoints go")
        check_needs("render_every", render_every, visualizer, "visualizer")
        check_needs("log_every", log_every, telemetry, "telemetry")
        self.step = 0
        self.step_fn = step_fn
        self.data_provider = data_provider
        self.telemetry = telemetry
        self.persister: Persister[S, C] = CheckpointPersister() if persister is None else persister
        self.visualizer = visualizer
        self._mode = CompiledMode(
            None if scan_steps is None else whole_number("scan_steps", scan_steps, at_least=1),
            None if replicas is None else whole_number("replicas", replicas, at_least=1),
            replica_metrics,
            check_finite=on_nonfinite != "ignore",
        )
        self._is_compiled = jit or scan_steps is not None
        self._parts = Parts(
            Checkpoints(self.persister, None if checkpoint_dir is None else Path(checkpoint_dir)),
            checked_callbacks(callbacks),
            None if log_every is None else Selector(Cadence.of("log_every", log_every)),
            Cadence.of("render_every", 1 if render_every is None else render_every),
            None if save_every is None else Cadence.of("save_every", save_every),
            checked_progress(progress),
            on_nonfinite,
        )
        self._config = config
        self._state = initial_state
        self._lost: StepError | None = None
        self._batches = Batches(data_provider)
        self._run: LoopRun[S, C] | None = None
        self._compiled: CompiledSteps[S] | None = None
        self._check_modes()

    @property
    def config(self) -> C:
        """The configuration, which may be set between two runs."""
        return self._config

    @config.setter
    def config(self, config: C) -> None:
        self._check_is_idle("setting loop.config")
        self._config = config

    @property
    def state(self) -> S:
        """The current State."""
        if self._run is not None:
            return self._run.steps.state()
        if self._lost is not None:
            raise self._lost
        return self._state

    @state.setter
    def state(self, state: S) -> None:
        if self._run is None:
            self._state, self._lost = state, None
        else:
            self._run.steps.replace(state)

    def run(
        self,
        num_steps: int,
        *,
        resume: str | Path | None = None,
        profile: Sequence[int] | None = None,
        profile_dir: Path | str = "profile",
    ) -> S:
        """Take up to ``num_steps`` further steps; the end of the data ends the run early.

        Whatever ends it (an exception and Ctrl-C included), the metrics so far are sent and the State of the last
        completed step is handed to the active run. An exception of the step function keeps its type and gets a note
        with the step's number.

        Args:
            num_steps: how many steps to take, 0 or more. A second call continues where the first one ended.
            resume: ``"auto"`` goes on from the newest whole checkpoint in ``checkpoint_dir``, and starts afresh where
                there is none; a path goes on from that checkpoint. The steps before the checkpoint count towards
                ``num_steps``, so that the same script, started again, comes to the same end, bit for bit. The data
                provider must be as it was when it was made.
            profile: ``(start, stop)``: JAX's profiler sees the steps after ``start`` up to ``stop``, which are numbers
                of completed steps. The files become artifacts of the active run.
            profile_dir: where the profile goes; TensorBoard, XProf and Perfetto read it.

        Returns:
            The State after the last step, which is also ``loop.state``.

        Raises:
            ArgumentError: an argument makes no sense.
            StepError: the step function did not return ``(new_state, metrics)``, cannot be compiled, or changes the
                structure of the State.
            MetricError: a metric is not a real scalar.
            NonFiniteError: a leaf or a metric is not finite, and ``on_nonfinite`` is ``"raise"``.
            CheckpointError: a checkpoint cannot be written, or the one to go on from has another structure.
        """
        count = whole_number("num_steps", num_steps, at_least=0)
        self._check_is_idle("run()")
        self._parts.checkpoints.check_writable()
        if resume is None and self.step == 0:
            self._parts.checkpoints.warn_of_others()
        window = Profile(profile, Path(profile_dir))
        target = self.step + count
        if resume is not None:
            target = self._resume(resume, target)
        run = LoopRun(
            self,
            self._parts,
            self._steps(),
            target=target,
            profile=window,
            saves_at_end=resume is not None or self._parts.save_cadence is None,
            checkpoint=self._checkpoint,
            hand_back=self._take_back,
        )
        self._run = run
        self._state = cast("S", None)  # the steps have it: one of the caller's may be let go
        try:
            run.run()
        finally:
            self._take_back(run.steps)
        return self.state

    def stop(self, reason: str = "loop.stop() was called") -> None:
        """End the run after the step whose callback this is called from; outside of a run it does nothing.

        Args:
            reason: kept in the checkpoint, where there is one: ``resume="auto"`` takes no further step from there.
        """
        if self._run is not None:
            self._run.stop_reason = reason

    def dry_run(self) -> DryRun:
        """Compile and take two steps, and put everything back: nothing is logged, saved or rendered.

        Batches that were looked at come again. What the step function itself does besides computing, it does.

        Returns:
            Time and memory of a step.

        Raises:
            StepError: as ``run``.
            MetricError: as ``run``.
        """
        self._check_is_idle("dry_run()")
        return dry_run(self._steps(), self._batches, self.state)

    def save_checkpoint(self, path: Path | str) -> None:
        """Write the current State, config, step and position in the data to ``path`` with the persister.

        Raises:
            CheckpointError: the State cannot be stored.
        """
        self.persister.save_checkpoint(self._checkpoint(), Path(path))
        self.persister.wait()

    def load_checkpoint(self, path: Path | str) -> None:
        """Continue from a checkpoint: State, config, step and data become what the persister reads.

        EquinoxPersister keeps the State only: with it the config stays, the step count restarts at 0, and the data stay
        where they are.

        Raises:
            CheckpointNotFoundError: there is no such file.
            CheckpointError: the file is damaged, or of another structure.
            DataError: the data provider cannot be put where it was.
        """
        self._check_is_idle("load_checkpoint()")
        found = self._parts.checkpoints.load(Path(path), self._like())
        if found.data is not None or found.step:
            self._batches.go_to(found.step, found.data)
        self.state, self.config, self.step = found.state, found.config, found.step

    def _checkpoint(self) -> Checkpoint[S, C]:
        step = self.step if self._run is None else self._run.steps.step
        return Checkpoint(self.state, self.config, step, self._batches.position())

    def _take_back(self, steps: Steps[S]) -> None:
        if self._run is not None:
            self.step = steps.step
            self._run = None
            try:
                self._state = steps.finish()
            except StepError as error:
                self._lost, self._state = error, steps.like()
                raise

    def _steps(self) -> Steps[S]:
        if self._lost is not None:
            raise self._lost
        if not self._is_compiled:
            checks = self._mode.check_finite
            return StepsAsGiven(self.step_fn, self.config, self._batches, self._state, self.step, check_finite=checks)
        if self._compiled is None or not self._compiled.restart(self._state, self.config, self.step):
            self._compiled = CompiledSteps(
                self.step_fn, self.config, self._batches, self._state, self.step, self._mode
            )  # fmt: skip
        self._compiled.listened_to = (
            self._parts.need_metrics or self.telemetry is not None or current() is not None
        )  # fmt: skip
        return self._compiled

    def _resume(self, resume: str | Path, target: int) -> int:
        own = self._like()
        if resume == "auto":
            found = self._parts.checkpoints.newest(own, until=target)
        elif not isinstance(cast("object", resume), (str, Path)):
            msg = f"resume must be 'auto', the path of a checkpoint, or None; it is {resume!r}"
            raise ArgumentError(msg)
        else:
            found = self._parts.checkpoints.load(Path(resume), own)
        if found is None:
            return target
        warn_of_other_config(found.config, self.config, found.step)
        self._batches.go_to(found.step, found.data)
        self.state, self.step = found.state, found.step
        if resume == "auto" and found.ended is not None:
            said = "the run was over after step %d (%s) and takes no further step; resume=PATH of a checkpoint goes on"
            _log.warning(said, found.step, found.ended)
            return found.step
        return target

    def _like(self) -> Checkpoint[S, C]:
        return Checkpoint(self._state, self.config, self.step)

    def _check_is_idle(self, call: str) -> None:
        if self._run is not None:
            msg = (
                f"{call} cannot be called while this Loop is running already: a callback may end its run by"
                " loop.stop(), and set loop.state"
            )
            raise ArgumentError(msg)

    def _check_modes(self) -> None:
        if self._mode.replicas is not None and not self._is_compiled:
            which = f"replicas={self._mode.replicas}"
            msg = f"{which} needs jit=True or scan_steps=, since the step is mapped over the replicas"
            raise ArgumentError(msg)
        if self._mode.scan_steps is not None and self._batches.needs_state:
            kind = type(self.data_provider).__name__
            msg = (
                f"scan_steps={self._mode.scan_steps} cannot show {kind}.get_batch the State of each step, which stays"
                " on the device: use FunctionDataProvider(batch_at) with batch_at(state, step), or jit=True"
            )
            raise ArgumentError(msg)
