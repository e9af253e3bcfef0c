"""What a clip costs in a sweep, beside the plain sampler, on a finished run.

    make demo
    python -m benchmarks.sweep --config configs/demo.yaml --json benchmarks/results/sweep.json

Both decode the same clips with the same number of steps, in turns. The plain sampler has one
program and keeps guidance and seed; the sweep has one for each of three numbers of steps, and
changes guidance scale and seed with every turn.
"""

import statistics
import time
from pathlib import Path

from benchmarks.measuring import parser, write_result
from glfa_jax import config
from glfa_jax.evaluation.decoding import open_test
from glfa_jax.evaluation.sweep import Cell, decode_all


def main() -> None:
    made = parser(__doc__, rounds=9)
    made.add_argument("--config", required=True, type=Path)
    made.add_argument("--clips", type=int, default=16)
    arguments = made.parse_args()
    clips = [f"evaluation.clips={arguments.clips}", f"evaluation.batch_size={arguments.clips}"]
    settings = config.load(arguments.config, clips)
    test = open_test(settings)
    subject = settings.protocol.test_subjects[0]
    evaluation, checkpoint = settings.evaluation, settings.cotrain.steps
    steps = evaluation.sampling_steps
    plain, swept = test.sampler(), test.sampler()

    def sample() -> float:
        begin = time.perf_counter()
        for batch in test.batches(subject):
            scale = evaluation.guidance_scale
            test.decode(plain, subject, batch, scale=scale, steps=steps, seed=settings.seed)
        return time.perf_counter() - begin

    def sweep(count: int, turn: int) -> float:
        cell = Cell(checkpoint, subject, count, guidance_scale=1.0 + turn, seed=turn)
        begin = time.perf_counter()
        for _ in decode_all(test, swept, cell):
            pass
        return time.perf_counter() - begin

    sample()
    for count in (steps, max(steps // 2, 1), max(steps // 4, 1)):
        sweep(count, 0)
    times = [(sample(), sweep(steps, turn)) for turn in range(arguments.rounds)]
    own, theirs = (statistics.median(side) / arguments.clips for side in zip(*times, strict=True))
    ratio = statistics.median(b / a for a, b in times)
    print(f"plain {own:.3f} s a clip, in a sweep {theirs:.3f}: {ratio:.3f} times as long")
    print(f"compiled programs: plain {plain.compiled()}, sweep {swept.compiled()}")
    result = {
        "config": str(arguments.config),
        "clips": arguments.clips,
        "sampling_steps": steps,
        "rounds": arguments.rounds,
        "plain_seconds_a_clip": own,
        "sweep_seconds_a_clip": theirs,
        "sweep_over_plain": ratio,
        "programs": {"plain": plain.compiled(), "sweep": swept.compiled()},
    }
    write_result(arguments.json, result, packages=("jax", "jaxlib", "flax"))


if __name__ == "__main__":
    main()
