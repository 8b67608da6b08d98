"""What does this process run on? The facts that can change bits, and those that explain a change."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import re
import sys
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from researchlab.tracking.record import EnvironmentRecord

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Environment variables that may change bits. Nothing else of the environment is recorded: it may hold secrets.
#: (Not all of `TF_*`: Terraform keeps credentials under that prefix too.)
VARIABLES = (
    "CUBLAS_*",
    "CUDA_*",
    "JAX_*",
    "LANG",
    "LC_*",
    "LIBTPU_INIT_ARGS",
    "MKL_*",
    "NCCL_*",
    "NPROC",
    "NVIDIA_TF32*",
    "OMP_*",
    "OPENBLAS_*",
    "PYTHONHASHSEED",
    "PYTHONOPTIMIZE",
    "TF_CUBLAS_*",
    "TF_CUDNN_*",
    "TF_DETERMINISTIC_OPS",
    "TF_DISABLE_*",
    "TF_ENABLE_*",
    "TF_GPU_*",
    "TF_NUM_*",
    "TF_XLA_*",
    "TZ",
    "XLA_*",
)

#: Names that an allowed prefix would let in although they look like secrets.
_SECRET = re.compile(r"TOKEN|SECRET|PASSWORD|CREDENTIAL|API_?KEY", re.IGNORECASE)


def variables(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment variables of the allow-list, sorted by name.

    Args:
        environ: The environment; the process's own by default.

    Returns:
        Name to value.
    """
    source = os.environ if environ is None else environ
    return {name: source[name] for name in sorted(source) if is_recorded_variable(name)}


def is_recorded_variable(name: str) -> bool:
    """Return whether an environment variable may change bits and is therefore recorded."""
    return any(fnmatchcase(name, pattern) for pattern in VARIABLES) and not _SECRET.search(name) and "=" not in name


def describe_environment() -> EnvironmentRecord:
    """Describe the interpreter, the machine, the packages, the allowed variables and, where it is in use, JAX."""
    return EnvironmentRecord(
        python={
            "version": platform.python_version(),
            "implementation": platform.python_implementation(),
            "executable": sys.executable,
            "hash_randomization": str(sys.flags.hash_randomization),
        },
        platform={
            "system": platform.system(),
            "release": platform.release(),
            "machine": platform.machine(),
            "libc": " ".join(platform.libc_ver()),
            "cores": str(_usable_cores()),
            **_processor(),
        },
        packages=_packages(),
        variables=variables(),
        jax=_jax_facts(),
    )


def with_jax_facts(environment: EnvironmentRecord) -> EnvironmentRecord:
    """Return the environment with what is known of JAX now: a program may load and start it inside of a run."""
    return environment.model_copy(update={"jax": _jax_facts()})


def _usable_cores() -> int:
    # The cores that this process may use set the thread count, which changes reductions; os.cpu_count() ignores
    # affinity.
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _processor() -> dict[str, str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").partition("\n\n")[0]
    except OSError:
        return {"processor": platform.processor()}
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}
    flags = fields.get("flags", fields.get("Features", "")).split()
    facts = {"processor": fields.get("model name", platform.processor())}
    facts["isa"] = " ".join(name for name in ("fma", "avx2", "avx512f", "amx_tile", "sve") if name in flags)
    facts["isa_digest"] = hashlib.sha256(" ".join(sorted(flags)).encode()).hexdigest()[:16]
    return facts


def _packages() -> dict[str, str]:
    found: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        metadata: Any = distribution.metadata  # a broken install has no metadata, or none with a name
        name = metadata["Name"] if metadata is not None else None
        if name:
            found.setdefault(re.sub(r"[-_.]+", "-", str(name)).lower(), str(distribution.version))
    return dict(sorted(found.items()))


def _jax_facts() -> dict[str, str]:
    """Return JAX's facts, without loading it and without starting a backend that the program did not start."""
    jax: Any = sys.modules.get("jax")
    if jax is None or not hasattr(jax, "__version__"):
        return {}
    jaxlib: Any = sys.modules.get("jaxlib")
    facts = {"jax": str(jax.__version__), "jaxlib": str(getattr(jaxlib, "__version__", ""))}
    facts.update(_jax_config(jax))
    bridge: Any = sys.modules.get("jax._src.xla_bridge")
    if bridge is None or not bridge.backends_are_initialized():
        return facts
    device = jax.devices()[0]
    facts["backend"] = str(jax.default_backend())
    facts["platform_version"] = str(device.client.platform_version)
    facts["device_kind"] = str(device.device_kind)
    facts["device_count"] = str(jax.device_count())
    facts["local_device_count"] = str(jax.local_device_count())
    facts["process_count"] = str(jax.process_count())
    for name in ("compute_capability", "core_count"):
        if hasattr(device, name):
            facts[name] = str(getattr(device, name))
    return facts


def _jax_config(jax: Any) -> dict[str, str]:
    chosen = (
        "jax_enable_x64",
        "jax_default_prng_impl",
        "jax_threefry_partitionable",
        "jax_default_matmul_precision",
        "jax_disable_jit",
        "jax_numpy_dtype_promotion",
        "jax_cpu_collectives_implementation",
    )
    values: Mapping[str, Any] = getattr(jax.config, "values", {})
    return {f"config.{name}": str(values[name]) for name in chosen if name in values}
