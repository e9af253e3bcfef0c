"""What a compiled program does, read from its text: how often its loops run, what devices exchange.

XLA's own count takes the body of a loop for one pass; here every operation counts as often as it
runs.
"""

import math
import re
from collections import defaultdict
from dataclasses import dataclass, field

_COMPUTATION = re.compile(r"^(ENTRY )?%?(\S+) \(.*-> .*\{$")
_OPERATION = re.compile(r"^ *(?:ROOT )?%?(\S+) = (.*?) ([a-z][\w-]*)\((.*)$")
_CALLED = re.compile(
    r"\b(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([^,\s)}]+)"
)
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_SHAPE = re.compile(r"\b(pred|[su]\d+|f\d+\w*|bf16)\[([\d,]*)\]")
_TRIPS = re.compile(r'known_trip_count":\{"n":"(\d+)"')
# A TPU works on one exchange piece by piece within a chain of fusions; each names it in full.
_PIECE = re.compile(r"channel_id=(\d+).*\bchain_id=")
# Kernels of fused attention: what their calls hold; operations, over batch x heads x queries x keys
# x width; whether XLA counts them. The first that fits.
_ATTENTION = (
    ("flash_mha_bwd_dkv", 8, False),
    ("flash_mha_bwd_dq", 6, False),
    ("flash_attention", 4, True),
    ("fmhaSoftmaxBackward", 10, False),
    ("fmhaSoftmax", 4, False),
)
_KERNEL = re.compile(r'custom_call_target="(tpu_custom_call|__cudnn\$fmha\w*)"')
_EXCHANGES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")


@dataclass(frozen=True)
class _Operation:
    name: str
    result: str
    kind: str
    rest: str  # operands and attributes
    operands: list[str]


@dataclass
class _Computation:
    operations: dict[str, _Operation] = field(default_factory=dict)
    runs: float = 0.0
    places: float = 0.0  # runs if every loop made one pass
    fused: bool = False


class Program:
    """The optimized program of one device, from `Compiled.as_text()`."""

    def __init__(self, text: str):
        self._computations: dict[str, _Computation] = {}
        entry, current = "", _Computation()
        for line in text.splitlines():
            if begin := _COMPUTATION.match(line):
                current = self._computations[begin[2]] = _Computation()
                entry = begin[2] if begin[1] else entry
            elif found := _OPERATION.match(line):
                name, result, kind, rest = found.groups()
                operands = re.findall(r"%([^\s,()]+)", rest.partition(")")[0])
                current.operations[name] = _Operation(name, result, kind, rest, operands)
        self._run(entry, 1.0, 1.0)

    def _run(self, name: str, runs: float, places: float) -> None:
        computation = self._computations.get(name)
        if computation is None:
            return
        computation.runs += runs
        computation.places += places
        for operation in computation.operations.values():
            called = _CALLED.findall(operation.rest)
            for branches in _BRANCHES.findall(operation.rest):
                called += [branch.strip().lstrip("%") for branch in branches.split(",")]
            trips = self._trips(operation) if operation.kind == "while" else 1
            for other in called:
                if operation.kind == "fusion" and other in self._computations:
                    self._computations[other].fused = True
                self._run(other, runs * trips, places)

    def _trips(self, loop: _Operation) -> int:
        """As stated, or the bound that a counter from zero is compared with; 1 when unknown."""
        if stated := _TRIPS.search(loop.rest):
            return int(stated[1])
        condition = re.search(r"condition=%?([^,\s)}]+)", loop.rest)
        found = self._computations.get(condition[1]) if condition else None
        bounds = [
            int(operation.rest.partition(")")[0])
            for operation in (found.operations.values() if found else ())
            if operation.kind == "constant" and operation.rest.partition(")")[0].isdigit()
        ]
        return max(bounds, default=1)

    def repeated(self) -> tuple[float, float]:
        """Operations that XLA does not count: those that loops make beyond their first pass, and
        some of fused attention; traffic of all passes over the first.

        Operations are those of matrix products and convolutions, two a multiply-add.
        """
        operations, traffic = 0.0, [0.0, 0.0]
        for computation in self._computations.values():
            again = computation.runs - computation.places
            for operation in computation.operations.values():
                operations += 2 * again * self._products(computation, operation)
                attention, counted = self._attention(computation, operation)
                operations += attention * (again if counted else computation.runs)
                written = 0.0 if computation.fused else _written(operation)
                traffic[0] += computation.places * written
                traffic[1] += computation.runs * written
        return operations, traffic[1] / traffic[0] if traffic[0] else 1.0

    def exchanges(self) -> dict[str, dict[str, float]]:
        """Kind of exchange between devices to how many a run, and the bytes that a device gets."""
        each: dict[str, tuple[str, float, float]] = {}  # kind, runs and bytes of every exchange
        for place, computation in self._computations.items():
            for operation in computation.operations.values():
                kind = operation.kind.removesuffix("-start")
                if kind not in _EXCHANGES:
                    continue
                sizes = [_bytes(*shape) for shape in _SHAPE.findall(operation.result)]
                # One that is only begun lists what it takes beside what it gives.
                begun = operation.kind.endswith("-start") and kind != "all-reduce"
                piece = _PIECE.search(operation.rest)
                name, runs = piece[1] if piece else f"{place}/{operation.name}", computation.runs
                if name in each:  # pieces may follow each other; the first and last run once
                    runs = min(runs, each[name][1])
                each[name] = kind, runs, max(sizes) if begun else sum(sizes)
        found: dict[str, dict[str, float]] = defaultdict(lambda: {"count": 0.0, "bytes": 0.0})
        for kind, runs, size in each.values():
            found[kind]["count"] += runs
            found[kind]["bytes"] += runs * size
        return dict(found)

    def _shape(self, computation: _Computation, name: str) -> list[int]:
        operation = computation.operations.get(name)
        found = _SHAPE.search(operation.result) if operation else None
        return [int(n) for n in found[2].split(",") if n] if found else []

    def _attention(self, computation: _Computation, operation: _Operation) -> tuple[float, bool]:
        """Operations of a fused attention kernel, and whether XLA counts one pass of them."""
        if operation.kind != "custom-call" or not _KERNEL.search(operation.rest):
            return 0.0, False
        for name, times, counted in _ATTENTION:
            if name in operation.rest:
                query, key = (self._shape(computation, x) for x in operation.operands[:2])
                if len(query) != 4 or len(key) != 4:
                    return 0.0, counted
                # Heads and positions come in either order; kernels are taken for many positions.
                return float(times * math.prod(query) * max(key[1:3])), counted
        return 0.0, False

    def _products(self, computation: _Computation, operation: _Operation) -> float:
        """Multiply-adds of a matrix product or a convolution."""
        if operation.kind not in ("dot", "convolution", "custom-call"):
            return 0.0
        shapes = [self._shape(computation, name) for name in operation.operands[:2]]
        found = _SHAPE.search(operation.result)
        if len(shapes) < 2 or found is None:
            return 0.0
        result, (left, right) = _size(found[2]), shapes
        if operation.kind == "dot":
            axes = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", operation.rest)
            return result * math.prod(left[int(i)] for i in axes[1].split(",") if i) if axes else 0
        if operation.kind == "convolution":
            labels = re.search(r"dim_labels=\w+_(\w+)->", operation.rest)
            kernel = zip(labels[1] if labels else "", right, strict=False)
            taps = math.prod(length for label, length in kernel if label != "o")
            holes = re.search(r"lhs_dilate=([\dx]+)", operation.rest)
            return result * taps / math.prod(map(int, holes[1].split("x") if holes else ()))
        if not re.search(r"custom_call_target=\"[^\"]*(gemm|matmul|conv)", operation.rest):
            return 0.0
        return math.sqrt(result * math.prod(left) * math.prod(right))  # exact without batch axes


def _written(operation: _Operation) -> float:
    """Bytes; an update in place, of which the text gives the whole array, counts nothing."""
    free = ("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "call")
    if operation.kind in free or "dynamic-update-slice" in operation.name:
        return 0.0
    return sum(_bytes(*shape) for shape in _SHAPE.findall(operation.result))


def _size(shape: str) -> int:
    return math.prod(int(n) for n in shape.split(",") if n)


def _bytes(kind: str, shape: str) -> float:
    bits = 8 if kind == "pred" else int(re.sub(r"\D.*", "", kind.lstrip("sufb")) or 8)
    return _size(shape) * bits / 8
