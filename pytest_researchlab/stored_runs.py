"""How does a stored run become a pytest item: collected, executed again, and reported?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pytest_researchlab._plan import STORE_OPTION, Plan, calm_imports
from researchlab.errors import ResearchlabError
from researchlab.tracking.request import REQUEST_VARIABLE

if TYPE_CHECKING:
    import os
    from collections.abc import Generator, Iterable

    from _pytest._code.code import TerminalRepr, TracebackStyle  # pytest exports neither

    from researchlab.reproduce.verdict import Verdict

_NODE_ID = "rlab"
_WORKER_INPUT = "researchlab"
_REPRODUCED = "REPRODUCED"
_NO_VERDICT = "NO VERDICT"


def activate(config: pytest.Config) -> None:
    """Let this session collect the runs that ``--rlab-reproduce`` names.

    Args:
        config: The session's configuration.

    Raises:
        pytest.UsageError: The runs cannot be found.
    """
    import os

    if REQUEST_VARIABLE in os.environ:  # the option came in with an ini file: a re-execution starts no other
        return
    message = getattr(config, "workerinput", {}).get(_WORKER_INPUT)
    plan = Plan.from_message(message) if message is not None else Plan.from_options(config)
    config.pluginmanager.register(StoredRunHooks(plan), "researchlab-stored-runs")
    if config.args_source is not pytest.Config.ArgsSource.ARGS:
        config.args = []  # nobody named a path: collect only the runs


class NotReproducedError(AssertionError):
    """A re-execution did not give the same bits; its text is the report."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.report())
        self.verdict = verdict


class StoredRun(pytest.Item):
    """A stored run; it passes when the same bits come back.

    A plain item, not a test function: autouse fixtures of the suite (another working directory, another store) are for
    its tests, not for the process that executes the run.
    """

    def __init__(self, *, plan: Plan, **node: Any) -> None:
        super().__init__(**node)
        self.verdict: Verdict | None = None
        self._plan = plan
        self.add_marker("rlab_reproduce")

    def runtest(self) -> None:
        """Execute the run again and judge it."""
        plan = self._plan
        self.verdict = None
        with calm_imports():
            from researchlab.reproduce import Terminated, reproduce
            from researchlab.tracking._wording import with_store_option
        try:
            with calm_imports(), with_store_option(STORE_OPTION):
                verdict = reproduce(
                    self.name, tracking_uri=plan.tracking_uri, repo=plan.repo, timeout=plan.timeout, keep=plan.keep
                )
        except Terminated as stop:  # pytest would take it for a failure, and go on with the next run
            pytest.exit("told to stop by a signal", returncode=int(stop.code or 1))
        except Exception as error:
            self._note(verdict=_NO_VERDICT, outcome=_first_line(error))
            raise
        self.verdict = verdict
        found = verdict.reason if verdict.first is None else f"first at {verdict.first.where()}"
        self._note(
            verdict=verdict.kind.value,
            outcome=verdict.compared if verdict.ok else found,
            seconds="" if verdict.seconds is None else f"{verdict.seconds:.1f}",
            kept="" if verdict.kept is None else str(verdict.kept),
        )
        if not verdict.ok:
            raise NotReproducedError(verdict)

    def repr_failure(
        self,
        excinfo: pytest.ExceptionInfo[BaseException],
        style: TracebackStyle | None = None,  # noqa: ARG002 (pytest's signature; there is one way to show a verdict)
    ) -> str | TerminalRepr:
        """Show the report of the verdict, or the message of our own error, in place of a traceback."""
        error = excinfo.value
        if isinstance(error, NotReproducedError):
            line = error.verdict.summary()
        elif isinstance(error, ResearchlabError):
            line = _first_line(error)
        else:  # a defect of ours: without the frames of pytest, which a plain item would show
            return excinfo.getrepr(style="short", tbfilter=lambda info: info.traceback.cut(path=__file__))
        representation = excinfo.getrepr(style="value", chain=False)
        if representation.reprcrash is not None:  # what the short summary, --tb=line and junit show
            representation.reprcrash.path = self.nodeid
            representation.reprcrash.message = line
        return representation

    def reportinfo(self) -> tuple[os.PathLike[str] | str, int | None, str]:
        """Return where the item stands in the progress output, and its heading in a failure."""
        return self.config.rootpath / _NODE_ID, None, self.name

    def _note(self, **facts: str) -> None:
        """Put facts where pytest-xdist, junit and the summary find them, in place of those of an earlier try."""
        others = [(name, value) for name, value in self.user_properties if not name.startswith("rlab.")]
        ours = {"run_id": self.name, **facts}
        self.user_properties[:] = [*others, *((f"rlab.{name}", str(value)) for name, value in ours.items() if value)]


class StoredRuns(pytest.Collector):
    """All stored runs of the session, one item each."""

    def __init__(self, *, plan: Plan, **node: Any) -> None:
        super().__init__(**node)
        self._plan = plan

    def collect(self) -> Iterable[StoredRun]:
        """Make the items."""
        return [StoredRun.from_parent(self, name=run_id, plan=self._plan) for run_id in self._plan.run_ids]


class StoredRunHooks:
    """The hooks of a session that executes stored runs; no other session has them."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._facts: dict[str, dict[str, str]] = {}

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Send the plan to a worker of pytest-xdist."""
        node.workerinput[_WORKER_INPUT] = self._plan.to_message()

    def pytest_report_header(self) -> str:
        """Say what is about to be executed."""
        return f"researchlab: {self._plan.describe()}"

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(
        self, collector: pytest.Collector
    ) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
        """Put the runs behind what the session collected, as one collector of their own (pytest#7655)."""
        report = yield
        if isinstance(collector, pytest.Session) and report.passed:
            # The node id is given: else the ids would begin with `::`, and junit's class names with a dot.
            report.result.append(StoredRuns.from_parent(collector, name=_NODE_ID, nodeid=_NODE_ID, plan=self._plan))
        return report

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Add the report of a run that came back; that of a failure is the failure's own text."""
        report = yield
        if isinstance(item, StoredRun) and item.verdict is not None and report.when == "call" and report.passed:
            report.sections.append(("researchlab", item.verdict.report()))
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a verdict, from this process or from a worker's."""
        if report.when == "call":
            facts = {name: str(value) for name, value in report.user_properties if name.startswith("rlab.")}
            if "rlab.run_id" in facts:
                self._facts[facts["rlab.run_id"]] = facts

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print a verdict a line, also of the runs that passed."""
        rows = [self._facts[run_id] for run_id in self._plan.run_ids if run_id in self._facts]
        if not rows:
            return
        terminalreporter.section("researchlab")
        verdict, run_id, seconds = (
            max(len(row.get(name, "")) for row in rows) for name in ("rlab.verdict", "rlab.run_id", "rlab.seconds")
        )
        for row in rows:
            took = f"{row['rlab.seconds']:>{seconds}} s" if "rlab.seconds" in row else " " * (seconds + 2)
            line = f"  {row['rlab.run_id']:<{run_id}}  {took}  {row.get('rlab.outcome', '')}"
            colour = {"green": True} if row["rlab.verdict"] == _REPRODUCED else {"red": True}
            terminalreporter.write(row["rlab.verdict"].ljust(verdict), **colour)
            terminalreporter.write(f"{line.rstrip()}\n")  # write_line would begin a new one
            if "rlab.kept" in row:
                terminalreporter.write_line(f"{'':<{verdict}}  kept in {row['rlab.kept']}")


def _first_line(error: Exception) -> str:
    line = str(error).strip().partition("\n")[0]
    return line if isinstance(error, ResearchlabError) else f"{type(error).__name__}: {line}"
