"""What is recorded of the environment, and above all what is not."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from researchlab.tracking.environment import describe_environment, is_recorded_variable, variables, with_jax_facts


@pytest.mark.parametrize(
    "name",
    [
        "XLA_FLAGS",
        "JAX_ENABLE_X64",
        "OMP_NUM_THREADS",
        "PYTHONHASHSEED",
        "CUDA_VISIBLE_DEVICES",
        "TF_CUDNN_DETERMINISTIC",
    ],
)
def test_what_may_change_bits_is_recorded(name: str) -> None:
    assert is_recorded_variable(name)


@pytest.mark.parametrize(
    "name",
    [
        "HOME",
        "PATH",
        "USER",
        "PYTHONPATH",
        "AWS_SECRET_ACCESS_KEY",
        "GITHUB_TOKEN",
        "MLFLOW_TRACKING_PASSWORD",
        "MLFLOW_TRACKING_URI",
        "TF_VAR_password",
        "JAX_CLUSTER_TOKEN",
        "XLA_SECRET",
        "OMP_API_KEY",
        "CUDA_PASSWORD",
        "NCCL_CREDENTIALS_FILE",
        "jax_lower",
        "MY_XLA_FLAGS",
    ],
)
def test_what_may_be_a_secret_or_is_nobodys_business_is_not(name: str) -> None:
    assert not is_recorded_variable(name)


def test_variables_are_sorted_and_filtered() -> None:
    environ = {"XLA_FLAGS": "b", "JAX_X": "a", "HOME": "/root", "JAX_TOKEN": "secret"}
    assert list(variables(environ).items()) == [("JAX_X", "a"), ("XLA_FLAGS", "b")]


def test_no_value_of_another_variable_is_anywhere_in_the_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", "geheim-1234")
    monkeypatch.setenv("JAX_SECRET_TOKEN", "geheim-1234")
    assert "geheim-1234" not in describe_environment().model_dump_json()


def test_interpreter_machine_and_packages_are_described() -> None:
    found = describe_environment()
    assert found.python["version"] == platform.python_version()
    assert found.platform["cores"] == str(len(os.sched_getaffinity(0)))
    assert {"mlflow", "numpy", "jax", "pyyaml"} <= set(found.packages)
    assert all(name == name.lower() and "_" not in name for name in found.packages)


_PROGRAM = """
import sys
from researchlab.tracking.environment import describe_environment, with_jax_facts
before = describe_environment()
assert before.jax == {} and "jax" not in sys.modules
import jax
loaded = with_jax_facts(before)
assert loaded.jax["jax"] == jax.__version__ and loaded.jax["config.jax_enable_x64"] == "False", loaded.jax
assert "backend" not in loaded.jax
from jax._src import xla_bridge
assert not xla_bridge.backends_are_initialized()
jax.numpy.zeros(1).block_until_ready()
running = with_jax_facts(before).jax
assert (running["backend"], running["device_count"]) == ("cpu", str(jax.device_count()))
assert with_jax_facts(before).packages == before.packages
"""


def test_jax_is_described_when_the_program_uses_it_and_never_started() -> None:
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_describing_jax_keeps_the_rest() -> None:
    environment = describe_environment()
    assert with_jax_facts(environment).variables == environment.variables
