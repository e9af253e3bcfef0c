"""What lies in a source, as a table for people."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from glfa_jax.convert import official
from glfa_jax.convert.pretrained import KINDS
from glfa_jax.convert.sources import ALL_KINDS, Source, guess_kind, open_source, parts_of
from glfa_jax.errors import InputError


def inspect(place: str | Path, *, kind: str | None = None, **options: Any) -> str:
    """Kind, architecture, tensors, dtypes and files; what differs from the model of `kind`.

    `options` as of `open_source`. Raises InputError where nothing can be read.
    """
    place = Path(place)
    if not place.exists():
        raise InputError(f"{place}: no such file or folder")
    guess = guess_kind(place)
    wanted = kind or guess
    if wanted is None:
        raise InputError(
            f"{place}: looks like none of {', '.join(ALL_KINDS)}; if it is, state --kind"
        )
    lines = _aligned([("source", place), ("kind", f"{guess or 'unknown'} by its looks")])
    for part, inner in parts_of(wanted, place).items():
        where = place if part == "." else place / part
        model = open_source(inner, where, **options)
        lines += ["", f"{part}: {inner}"] if part != "." else [""]
        lines += _aligned(_facts(model), indent="  ")
    return "\n".join(lines)


def _facts(model: Source) -> Iterable[tuple[str, object]]:
    stored = [*model.tensors.values(), *model.extra.values()]
    dtypes = Counter(str(tensor.dtype) for tensor in stored)
    whose = "official" if model.kind in official.KINDS else "our own"
    yield "class", KINDS[model.kind].torch_class or f"{whose} {model.kind}"
    for key, value in sorted(model.config.items()):
        if isinstance(value, int | float | str | list | tuple) and not key.startswith("_"):
            yield f"  {key}", value
    yield "tensors", len(stored)
    yield "parameters", f"{sum(tensor.size for tensor in stored):,}"
    yield "dtypes", ", ".join(f"{name} ({count})" for name, count in dtypes.most_common())
    for path in model.files:
        yield "file", f"{path.name} ({path.stat().st_size:,} bytes)"
    if model.extra:
        yield "beside", f"the autoencoder's decoder, {len(model.extra)} tensors"
    try:
        places, problems = model.fit
    except InputError as error:
        yield "fits", f"no: {error}"
        return
    table = KINDS[model.kind].table(model.tensors)
    ignored = [name for name in model.tensors if table.ignores(name)]
    if ignored:
        yield "ignored", ", ".join(ignored)
    if not problems:
        yield "fits", f"yes, all {len(places)} tensors have their place"
    for problem in problems:
        name, _, what = problem.partition(": ")
        yield name, what


def _aligned(rows: Iterable[tuple[str, object]], *, indent: str = "") -> list[str]:
    rows = list(rows)
    width = max(len(name) for name, _ in rows)
    return [f"{indent}{name:<{width}}  {value}" for name, value in rows]
