"""Where the tests run: on the CPU, in full float32, with compiled programs kept between runs.

Environment variables, not `jax.config`: the programs that some tests start inherit them. What the
caller has set already wins. Tests marked `gpu` run only where they are asked for (`-m gpu`) and
there is a GPU; elsewhere they are deselected, so that a run without one skips nothing.
"""

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {
    "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".cache" / "jax-tests"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
    # Most of the time goes into compiling; without these emitters it takes a third less.
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "true",
    "XLA_FLAGS": "--xla_cpu_use_fusion_emitters=false",
    # Tiny models gain nothing by more: on two cores, threads of PyTorch that wait for each other
    # took half of the parity tests' time.
    "OMP_NUM_THREADS": "1",
    "JAX_DEFAULT_MATMUL_PRECISION": "highest",  # a GPU would round float32 products to TF32
}


def gpu_wanted(config: pytest.Config) -> bool:
    expression = config.option.markexpr
    return "gpu" in expression and "not gpu" not in expression


def pytest_configure(config: pytest.Config) -> None:
    if "jax" in sys.modules:  # a plugin; its settings are read when it is imported
        raise pytest.UsageError("jax was imported before tests/conftest.py could choose a platform")
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if not gpu_wanted(config):
        os.environ.setdefault("JAX_PLATFORMS", "cpu")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked or (gpu_wanted(config) and _gpu_present()):
        return
    config.hook.pytest_deselected(items=marked)
    items[:] = [item for item in items if item not in marked]


def _gpu_present() -> bool:
    import jax

    return jax.default_backend() == "gpu"
