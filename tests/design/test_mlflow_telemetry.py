from __future__ import annotations

import warnings

import jax.numpy as jnp
import ml_dtypes
import mlflow
import numpy as np
import pytest

from researchlab._recording import MetricBlock
from researchlab.design import Config, Loop, MetricEntry, MLFlowTelemetry, State
from researchlab.design._telemetries._reporter import Reporter
from researchlab.errors import MetricError, NoActiveRunError, ResearchlabWarning, StoreError


def history(run_id, name):
    return [(metric.step, metric.value) for metric in mlflow.MlflowClient().get_metric_history(run_id, name)]


def params(run_id):
    return mlflow.MlflowClient().get_run(run_id).data.params


def test_a_call_outside_a_loop_reaches_mlflow_at_once(mlflow_run):
    telemetry = MLFlowTelemetry()
    telemetry.log_metrics({"loss": jnp.asarray(0.1), "n": np.int32(3), "val": {"ok": True}}, 4)
    assert history(mlflow_run, "loss") == [(4, float(np.float32(0.1)))]
    assert history(mlflow_run, "n") == [(4, 3.0)]
    assert history(mlflow_run, "val.ok") == [(4, 1.0)]


def test_numbers_that_are_not_finite_pass(mlflow_run):
    MLFlowTelemetry().log_metrics({"nan": float("nan"), "inf": jnp.inf, "zero": -0.0}, 1)
    assert np.isnan(history(mlflow_run, "nan")[0][1])
    assert history(mlflow_run, "inf")[0][1] > 1e308


def test_a_metric_that_is_no_scalar_is_refused(mlflow_run):
    with pytest.raises(MetricError, match="'m' of step 1"):
        MLFlowTelemetry().log_metrics({"m": jnp.ones(2)}, 1)
    with pytest.raises(MetricError, match="beyond the largest float"):
        MLFlowTelemetry().log_metrics({"m": 10**400}, 1)


def test_more_points_than_a_request_takes_arrive_with_their_times(mlflow_run):
    entries = [MetricEntry({"a": float(step), "b": 1.0}, step, 1_000 + step) for step in range(1, 1202)]
    MLFlowTelemetry().log_metrics_batch(entries)
    stored = mlflow.MlflowClient().get_metric_history(mlflow_run, "a")
    assert [(point.step, point.value, point.timestamp) for point in stored] == [
        (s, float(s), 1_000 + s) for s in range(1, 1202)
    ]


def test_a_batch_may_be_sent_again(mlflow_run):
    entries = [MetricEntry({"a": 1.0}, 1, 1_000)]
    MLFlowTelemetry().log_metrics_batch(entries)
    MLFlowTelemetry().log_metrics_batch(entries)
    assert history(mlflow_run, "a") == [(1, 1.0)]


def test_without_an_active_run_it_says_how_to_open_one_and_makes_none(mlflow_run):
    mlflow.end_run()
    for call in (lambda t: t.log_metrics({"a": 1}, 1), lambda t: t.log_params({"a": 1}), lambda t: t.log_params({})):
        with pytest.raises(NoActiveRunError, match="with ExperimentTracker"):
            call(MLFlowTelemetry())
    assert mlflow.active_run() is None


def test_nested_parameters_get_dotted_names(mlflow_run):
    class Inner(Config):
        widths: tuple[int, ...] = (3, 4)

    MLFlowTelemetry().log_params({"a": {"b": 1, "c.d": None}, "inner": Inner(), "e": {}, "list": [3, 4]})
    assert params(mlflow_run) == {
        "a.b": "1", "a.c.d": "None", "inner.widths": "[3, 4]", "e": "{}", "list": "[3, 4]",
    }  # fmt: skip


def test_more_parameters_than_a_request_takes_arrive(mlflow_run):
    MLFlowTelemetry().log_params({f"p{index}": index for index in range(250)})
    assert len(params(mlflow_run)) == 250


def test_a_parameter_of_the_same_value_is_left_alone_and_another_value_is_warned_about(mlflow_run):
    mlflow.log_params({"lr": "1", "name": "adam"})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        MLFlowTelemetry().log_params({"lr": 1.0, "name": "adam"})
    with pytest.warns(ResearchlabWarning, match="'name' of run .* stays 'adam' and does not become 'sgd'"):
        MLFlowTelemetry().log_params({"lr": 1.0, "name": "sgd", "new": 2})
    assert params(mlflow_run) == {"lr": "1", "name": "adam", "new": "2"}


def test_a_parameter_that_mlflow_cuts_is_warned_about_and_may_be_logged_again(mlflow_run):
    with pytest.warns(ResearchlabWarning, match="'long' has 7000 characters and MLflow keeps the first 6000"):
        MLFlowTelemetry().log_params({"long": "x" * 7000})
    assert params(mlflow_run) == {"long": "x" * 6000}
    with pytest.warns(ResearchlabWarning) as caught:
        MLFlowTelemetry().log_params({"long": "x" * 7000})
    assert len(caught) == 1


@pytest.mark.parametrize(
    "name", ["acc@1", "loss[0]", "a\\b", "", "a" * 251, "/a", "a//b", "../a", "a/.", ".", "line\nbreak"]
)
def test_a_name_that_mlflow_refuses_is_warned_about_once_and_the_others_arrive(mlflow_run, name):
    with pytest.raises(mlflow.MlflowException):
        mlflow.log_metric(name, 1.0)
    telemetry = MLFlowTelemetry()
    with pytest.warns(ResearchlabWarning, match="refuses the name"):
        telemetry.log_metrics({name: 1.0, "loss": 2.0}, 1)
    telemetry.log_metrics({name: 1.0, "loss": 2.0}, 2)
    telemetry.log_params({name: 1, "fine": 2})
    assert history(mlflow_run, "loss") == [(1, 2.0), (2, 2.0)]
    assert params(mlflow_run) == {"fine": "2"}


@pytest.mark.parametrize("name", ["a.b", "a/b", "grüße", "a b", "a-b_c:d", ".a", "a" * 250, "system/cpu"])
def test_a_name_that_mlflow_takes_arrives(mlflow_run, name):
    MLFlowTelemetry().log_metrics({name: 1.0}, 1)
    assert history(mlflow_run, name) == [(1, 1.0)]


class Counter(State):
    n: int


def count(state, config, batch):
    return Counter(state.n + 1), {"n": float(state.n + 1)}


class Settings(Config):
    lr: float = 0.5


def test_a_loop_delivers_everything_by_the_end_of_run(mlflow_run):
    Loop(Settings(), Counter(0), count, None, MLFlowTelemetry()).run(25)
    assert history(mlflow_run, "n") == [(step, float(step)) for step in range(1, 26)]
    assert params(mlflow_run) == {"lr": "0.5"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_loop_that_is_interrupted_delivers_what_it_has(mlflow_run, error):
    def step(state, config, batch):
        if state.n == 7:
            raise error
        return count(state, config, batch)

    with pytest.raises(error):
        Loop(Settings(), Counter(0), step, None, MLFlowTelemetry()).run(25)
    assert len(history(mlflow_run, "n")) == 7


def test_a_loop_without_an_active_run_fails_before_its_first_step(mlflow_run):
    mlflow.end_run()
    loop = Loop(Settings(), Counter(0), count, None, MLFlowTelemetry())
    with pytest.raises(NoActiveRunError):
        loop.run(3)
    assert loop.step == 0


def test_a_store_that_fails_is_a_store_error_outside_a_loop_and_a_warning_in_one(mlflow_run):
    mlflow.MlflowClient().delete_run(mlflow_run)
    with pytest.raises(StoreError, match="did not take 1 metric values"):
        MLFlowTelemetry().log_metrics({"a": 1.0}, 1)
    loop = Loop(Settings(), Counter(0), count, None, MLFlowTelemetry())
    with pytest.warns(ResearchlabWarning) as caught:
        loop.run(3)
    assert loop.step == 3
    said = [str(warning.message) for warning in caught]
    assert len(said) == 2
    assert "parameters were not logged" in said[0]
    assert "3 metric values of steps 1 to 3 were not delivered, they are lost" in said[1]
    mlflow.MlflowClient().restore_run(mlflow_run)


def block(first, count):
    steps = np.arange(first, first + count)
    columns = {"loss": (1 / steps).astype(np.float32), "count": steps, "small": steps.astype(ml_dtypes.bfloat16)}
    return MetricBlock(steps, 1000 + steps * 0.25, columns)


def test_a_block_arrives_with_the_time_of_each_step(mlflow_run):
    reporter = Reporter(None, MLFlowTelemetry())
    reporter.block(block(1, 300))
    reporter.close()
    stored = mlflow.MlflowClient().get_metric_history(mlflow_run, "loss")
    assert [(point.step, point.value, point.timestamp) for point in stored] == [
        (step, float(np.float32(1 / step)), 1_000_000 + step * 250) for step in range(1, 301)
    ]
    assert history(mlflow_run, "count")[-1] == (300, 300.0)
    assert history(mlflow_run, "small")[2] == (3, 3.0)


def test_more_than_a_request_takes_is_thinned_by_the_rule_and_ends_with_the_last_step(mlflow_run):
    reporter = Reporter(None, MLFlowTelemetry())
    reporter.block(block(1, 4001))
    reporter.close()
    wanted = [*range(16, 4001, 16), 4001]
    for name in ("loss", "count", "small"):
        assert [step for step, _ in history(mlflow_run, name)] == wanted


def test_the_metrics_of_a_loop_go_to_the_run_that_was_active_when_they_began(mlflow_run):
    reporter = Reporter(None, MLFlowTelemetry())
    reporter.block(block(1, 1))
    experiment = mlflow.get_run(mlflow_run).info.experiment_id
    with mlflow.start_run(experiment_id=experiment, nested=True) as inner:
        reporter.block(block(2, 1))
        reporter.close()
    assert [step for step, _ in history(mlflow_run, "loss")] == [1, 2]
    assert history(inner.info.run_id, "loss") == []


def test_a_loop_without_a_run_says_so_in_the_thread_of_the_loop(mlflow_run):
    mlflow.end_run()
    reporter = Reporter(None, MLFlowTelemetry())
    with pytest.raises(NoActiveRunError, match="with ExperimentTracker"):
        reporter.block(block(1, 1))
    reporter.close()


def test_a_subclass_that_overrides_a_method_is_not_passed_by(mlflow_run):
    class Single(MLFlowTelemetry):
        def log_metrics(self, metrics, step):
            super().log_metrics({"single": metrics["loss"]}, step)

    class Batches(MLFlowTelemetry):
        def log_metrics_batch(self, entries):
            super().log_metrics_batch([MetricEntry({"batch": 1.0}, entry.step, 0) for entry in entries])

    for telemetry in (Single(), Batches()):
        reporter = Reporter(None, telemetry)
        reporter.block(block(1, 2))
        reporter.close()
    assert [step for step, _ in history(mlflow_run, "single")] == [1, 2]
    assert history(mlflow_run, "batch") == [(1, 1.0), (2, 1.0)]
    assert history(mlflow_run, "loss") == []


def test_a_name_that_mlflow_refuses_is_a_warning_of_the_loop_and_costs_no_other_metric(mlflow_run):
    steps = np.array([1, 2])
    reporter = Reporter(None, MLFlowTelemetry())
    reporter.block(MetricBlock(steps, steps * 1.0, {"a@b": steps, "ok": steps}))
    with pytest.warns(ResearchlabWarning, match="'a@b' does not go to MLflow") as warned:
        reporter.close()
    assert len(warned) == 1
    assert history(mlflow_run, "ok") == [(1, 1.0), (2, 2.0)]


def test_a_step_with_a_number_that_no_float_holds_is_raised_with_its_name(mlflow_run):
    reporter = Reporter(None, MLFlowTelemetry())
    reporter.metrics({"m": 10**400}, 1)
    with pytest.raises(MetricError, match="'m' of step 1 is an integer beyond the largest float"):
        reporter.close()


def test_a_store_that_is_gone_is_warned_about_with_its_address(mlflow_run, tmp_path):
    reporter = Reporter(None, MLFlowTelemetry())
    with pytest.MonkeyPatch.context() as patch:

        def refuse(self, *args, **kwargs):
            msg = "database is locked"
            raise mlflow.exceptions.MlflowException(msg)

        patch.setattr(mlflow.MlflowClient, "log_batch", refuse)
        reporter.block(block(1, 2))
        with pytest.warns(ResearchlabWarning, match="6 metric values .*sqlite:///.*database is locked"):
            reporter.close()
