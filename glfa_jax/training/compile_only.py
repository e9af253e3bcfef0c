"""What a training step would need on devices that are not here: compiled, never run."""

import os
import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import jax
from jax.sharding import NamedSharding

from glfa_jax import config
from glfa_jax.errors import TrainingError
from glfa_jax.files import reason
from glfa_jax.training import speed
from glfa_jax.training.needs import frozen_shapes
from glfa_jax.training.optim import Group, optimizer
from glfa_jax.training.sharding import ROWS, make_mesh, replicated
from glfa_jax.training.step import LossFn, abstract_state, compiler_options, jitted_step

_OUT_OF_MEMORY = re.compile(
    r"([\d.]+)([KMG])\)? (?:of|exceeds available HBM) \(?([\d.]+)([KMG])", re.IGNORECASE
)
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}


@dataclass(frozen=True)
class Report:
    """Of one device, but for `devices` and `mesh`; bytes, seconds.

    fits: None where the capacity is not known. needed: of the capacity. memory: arguments (of
    which `alias` are given back in place), temporaries, output. collectives: kind to count and
    bytes. least_step: the longest of arithmetic, memory traffic and exchange at the device's best.
    """

    topology: str
    device: str
    devices: int
    mesh: dict[str, int]
    fits: bool | None
    capacity: float | None
    needed: float | None
    memory: dict[str, float]
    operations: float | None
    bytes_accessed: float | None
    collectives: dict[str, dict[str, float]]
    least_step: float | None
    compile_seconds: float

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        def gib(size: float | None) -> str:
            return "unknown" if size is None else f"{size / 2**30:.2f} GiB"

        lines = [f"{self.topology}: {self.devices} x {self.device}, mesh {self.mesh}"]
        parts = ", ".join(f"{name} {gib(size)}" for name, size in self.memory.items())
        says = {True: "fits", False: "does not fit", None: "unknown whether it fits"}[self.fits]
        capacity = "" if self.capacity is None else f" of {gib(self.capacity)}"
        lines.append(
            f"  {says}: {gib(self.needed)}{capacity} a chip{f' ({parts})' if parts else ''}"
        )
        if self.operations is not None and self.bytes_accessed is not None:
            lines.append(
                f"  a step: {self.operations / 1e12:.3f} Tflop and "
                f"{self.bytes_accessed / 1e9:.2f} GB of memory traffic a chip"
            )
        for kind, found in self.collectives.items():
            lines.append(f"  {kind}: {found['count']:.0f}, {found['bytes'] / 1e6:.1f} MB")
        if self.least_step is not None:
            lines.append(f"  no step is shorter than {self.least_step:.4f} s")
        lines.append(f"  compiled in {self.compile_seconds:.0f} s")
        return "\n".join(lines)


def devices_of(topology: str) -> Any:
    """The devices of a TPU slice such as v5e:2x2, or with `here` those of this machine."""
    if topology == "here":
        return jax.devices()
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    jax.config.update("jax_platforms", "cpu")
    from jax.experimental import topologies

    megacore = topology.startswith(("v4:", "v5p:"))
    options: dict[str, Any] = {"chip_config_name": "megacore"} if megacore else {}
    if topology.endswith(":1x1"):  # else hosts of four chips are taken for granted
        options["chips_per_host_bounds"] = [1, 1, 1]
    try:
        return topologies.get_topology_desc(
            platform="tpu", topology_name=topology, **options
        ).devices
    except Exception as error:  # the plugin's errors are of many kinds
        raise TrainingError(
            f"--compile-only {topology}: no such TPU slice, or libtpu is not installed "
            f"({reason(error)}); pip install 'glfa_jax[tpu]' and name it like v5e:2x2, v5p:2x2x1, "
            "v6e:4x4, or here"
        ) from None


def compile_step(
    topology: str,
    *,
    stage: config.Stage,
    hardware: config.Hardware,
    params: dict,
    frozen: Any,
    batch: Any,
    loss_fn: LossFn,
    groups: tuple[Group, ...],
) -> Report:
    """Compiles one training step; params, frozen and batch are shapes, the batch's whole."""
    mesh = make_mesh(hardware.mesh, devices=devices_of(topology))
    optim = optimizer(stage, trainable=params, groups=groups, moment_dtype=hardware.moment_dtype)
    state = abstract_state(params, optim, mesh, hardware)

    def lay(tree: Any, place: Callable[[Any], Any]) -> Any:
        return jax.tree.map(
            lambda x, where: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where),
            tree,
            place(tree),
        )

    frozen = frozen_shapes(frozen, mesh, hardware)
    batch = lay(batch, lambda tree: jax.tree.map(lambda _: NamedSharding(mesh, ROWS), tree))
    key = jax.eval_shape(lambda: jax.random.key(0))
    root = jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=replicated(mesh))
    step = jitted_step(loss_fn, optim, state, mesh, accumulate=stage.accumulate)
    traced = step.trace(state, frozen, batch, root)
    options, lowered = compiler_options(mesh, hardware, traced.jaxpr), traced.lower()
    start = time.monotonic()
    first = mesh.devices.flat[0]
    best = speed.limits(first)
    facts: dict[str, Any] = {
        "topology": topology,
        "device": first.device_kind,
        "devices": mesh.size,
        "mesh": dict(mesh.shape),
        "capacity": speed.capacity(first, here=topology == "here", sharing=mesh.size),
    }
    try:
        program = lowered.compile(compiler_options=options)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error) and "hbm" not in str(error):
            raise
        return Report(**facts | _rejection(str(error)), compile_seconds=time.monotonic() - start)
    seconds = time.monotonic() - start
    found = speed.costs(program)
    exchanged = sum(kind["bytes"] for kind in found.exchanges.values())
    least = best and max(
        found.operations / best.operations,
        found.bytes_accessed / best.bandwidth,
        exchanged / best.link,
    )
    memory = _memory(program)
    needed = sum(memory.values()) - 2 * memory["alias"]  # given back in place: counted twice
    return Report(
        **facts,
        fits=None if facts["capacity"] is None else needed <= facts["capacity"],
        needed=needed,
        memory=memory,
        operations=found.operations,
        bytes_accessed=found.bytes_accessed,
        collectives=found.exchanges,
        least_step=least,
        compile_seconds=seconds,
    )


def _memory(program: Any) -> dict[str, float]:
    sizes = program.memory_analysis()
    names = {
        "arguments": "argument_size_in_bytes",
        "temporaries": "temp_size_in_bytes",
        "output": "output_size_in_bytes",
        "alias": "alias_size_in_bytes",
    }
    return {name: float(getattr(sizes, key)) for name, key in names.items()}


def _rejection(message: str) -> dict[str, Any]:
    """What the compiler said of a program that does not fit."""
    match = _OUT_OF_MEMORY.search(message)
    sizes = [float(match[i]) * _UNITS[match[i + 1]] for i in (1, 3)] if match else [None, None]
    nothing = {"operations": None, "bytes_accessed": None, "least_step": None}
    return {
        "fits": False,
        "needed": sizes[0],
        **({"capacity": sizes[1]} if sizes[1] else {}),
        "memory": {},
        "collectives": {},
        **nothing,
    }
