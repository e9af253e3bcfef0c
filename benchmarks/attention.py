r"""One layer of attention by einsum and by a fused kernel: time, memory, memory traffic.

    pip install 'glfa_jax[tpu]'
    python -m benchmarks.attention --compile-only v5e:1x1 \
        --json benchmarks/results/attention_v5e.json
    python -m benchmarks.attention --json attention.json    # on a GPU or TPU: times both

bfloat16, forward and backward. With `--compile-only` nothing runs: temporaries and traffic are of
the programs that the TPU compiler makes, traffic as XLA counts it.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import SingleDeviceSharding

from benchmarks.measuring import median_seconds, parser, table, write_result
from glfa_jax.ops.attention import LONG, attention
from glfa_jax.training import speed
from glfa_jax.training.compile_only import devices_of

KERNELS = {"gpu": "cudnn", "tpu": "tpu"}


class Layer(NamedTuple):
    """What is batched, heads, positions and width of a head."""

    batch: int
    heads: int
    positions: int
    width: int


LAYERS = {
    "UNet3D, 24 frames of 256 x 256": Layer(24, 5, 1024, 64),
    "UNet3D, their second level": Layer(24, 10, 256, 64),
    "UNet3D, 36 frames of 320 x 576": Layer(36, 5, 2880, 64),
    "UNet3D, the second level of these": Layer(36, 10, 720, 64),
    "VAE, 24 frames of 256 x 256": Layer(24, 1, 1024, 512),
    "fMRI encoder, 32 maps": Layer(32, 16, 257, 64),
}


def passes(implementation: Any) -> Callable[..., tuple]:
    """Output and gradients of a layer, as one program."""

    def both(query: Any, key: Any, value: Any, g: Any) -> tuple:
        attend = partial(attention, implementation=implementation)
        y, pull = jax.vjp(attend, query, key, value)
        return y, pull(g)

    return jax.jit(both)


def compiled(layer: Layer, implementation: str, device: Any) -> Any:
    batch, heads, positions, width = layer
    given = jax.ShapeDtypeStruct(
        (batch, positions, heads, width), jnp.bfloat16, sharding=SingleDeviceSharding(device)
    )
    return passes(implementation).lower(given, given, given, given).compile()


def measured(layer: Layer, names: tuple[str, ...], device: Any, rounds: int | None) -> dict:
    """Implementation to what its program needs, and how long it takes where it is run."""
    programs = {name: compiled(layer, name, device) for name in names}
    found: dict[str, dict[str, float]] = {}
    for name, program in programs.items():
        costs, memory = speed.costs(program), program.memory_analysis()
        found[name] = {"temporaries": memory.temp_size_in_bytes, "traffic": costs.bytes_accessed}
    if rounds is None:
        return found
    batch, heads, positions, width = layer
    rng = np.random.default_rng(0)
    shape = (4, batch, positions, heads, width)
    given = jnp.asarray(rng.standard_normal(shape, np.float32), jnp.bfloat16)

    def call(program: Any) -> None:
        jax.block_until_ready(program(*given))

    calls = {name: partial(call, program) for name, program in programs.items()}
    for name, seconds in median_seconds(calls, rounds=rounds).items():
        found[name]["seconds"] = seconds
    return found


def main() -> None:
    made = parser(__doc__, rounds=20)
    made.add_argument("--compile-only", metavar="TOPOLOGY", help="a TPU slice, such as v5e:1x1")
    arguments = made.parse_args()
    device = devices_of(arguments.compile_only or "here")[0]
    if device.platform not in KERNELS:
        made.error("there is no fused kernel for the devices here; name a slice: --compile-only")
    names = ("einsum", KERNELS[device.platform])
    rounds = None if arguments.compile_only else arguments.rounds
    results, rows = {}, []
    for title, layer in LAYERS.items():
        found = results[title] = measured(layer, names, device, rounds)
        sizes = [f"{found[name]['temporaries'] / 2**30:.2f} GiB" for name in names]
        traffic = [f"{found[name]['traffic'] / 1e9:.1f} GB" for name in names]
        times = [f"{1e3 * found[name].get('seconds', float('nan')):.2f} ms" for name in names]
        rows.append((title, *layer, *sizes, *traffic, *(times if rounds else ())))
    head = ["layer", "batch", "heads", "positions", "width"]
    for what in ("temporaries", "traffic", *(("time",) if rounds else ())):
        head += [f"{what}, {name}" for name in names]
    print(table(head, rows))
    packages = ("jax", "jaxlib", *(("libtpu",) if arguments.compile_only else ()))
    kind = {"compiled for": device.device_kind, "auto takes kernels from": LONG}
    write_result(arguments.json, {"layers": results} | kind, packages=packages)


if __name__ == "__main__":
    main()
