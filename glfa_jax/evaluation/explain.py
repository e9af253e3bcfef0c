"""Says which cortex the decoded clips rest on: contribution maps of a finished run.

    python -m eval.explain --config configs/demo.yaml

Every area of the flat map is replaced by the training average, and what that takes from a score is
its contribution; the gradient times the input estimates the same at every pixel. Nothing is sampled
(docs/explain.md says what is scored). Then the maps are tested: deleting cortex where they are
highest must lower the score faster than deleting it at random. What is measured is kept batch after
batch, so that a command that was stopped goes on.

Leaves RUN/explain: contributions.json (of every area a mean and its interval over clips, deletion
curves), contributions.npz (maps), GIFTI of both hemispheres where scans lie on a mesh, and
index.html. The report of the run shows the maps when it is written the next time.
"""

import hashlib
import json
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from glfa_jax import config, system
from glfa_jax.cli import next_step, run_main
from glfa_jax.data import flatmap, surfaces
from glfa_jax.data.flatmap import FlatMap
from glfa_jax.data.gifti import SIDES, write_values
from glfa_jax.data.relief import drawn_on
from glfa_jax.errors import InputError
from glfa_jax.evaluation.contributions import results
from glfa_jax.evaluation.decoding import SCORING, HeldOut, open_test, validate_same_settings
from glfa_jax.evaluation.explaining import Explaining, chosen_scores, folder
from glfa_jax.evaluation.scoring import protocol_of
from glfa_jax.explain.areas import Areas, labelled, squares
from glfa_jax.explain.scores import VIDEO
from glfa_jax.files import savez_atomically, write_atomically
from glfa_jax.lock import only_one
from glfa_jax.method import method_name
from glfa_jax.report import contributions as page

# Options of sampling and scoring, which change nothing here; paths tell whose the parts are.
_BUT = SCORING | {
    "evaluation.sampler",
    "evaluation.sampling_steps",
    "evaluation.guidance_scale",
    "test_subjects",
}


def areas_of(settings: config.Config, test: HeldOut) -> Areas:
    """Those that `explain.labels` names, those that the region is made of, or squares.

    Raises InputError for labels that are asked for and cannot be placed on the flat map.
    """
    mask, own, data = test.store.mask, settings.explain, settings.data
    flat = drawn_on(data, mask=mask)
    if own.labels is not None:
        whole = flat or flatmap.of(data)  # which says what it lacks
        if not np.array_equal(whole.mask, mask):
            raise InputError(
                f"explain.labels: {test.store.path} was drawn on another flat map than that of "
                "data, so areas cannot be placed on it; leave it out"
            )
        if len(whole.sides) == 1:
            raise InputError(
                f"explain.labels: scans of layout {data.layout} are images, not vertices; leave it "
                "out"
            )
        return labelled(own.labels, flat=whole, mask=mask)
    if data.region is not None and data.region.labels is not None and flat is not None:
        return labelled(data.region.labels, flat=flat, mask=mask)
    return squares(mask, count=own.patches)


def main(settings: config.Config) -> None:
    names = chosen_scores(settings)
    test, place = open_test(settings), folder(settings)
    explaining = Explaining(test, names, areas_of(settings, test))
    with only_one(system.results_folder(settings)):
        same = partial(validate_same_settings, test, place, but=_BUT, more=_matters(explaining))
        same(keep=False)
        print(
            f"explain: {', '.join(names)}; {len(explaining.areas.names)} areas "
            f"({explaining.areas.source})",
            flush=True,
        )
        explaining.run(beginning=same)
        maps = {subject: explaining.maps(subject) for subject in settings.protocol.test_subjects}
        _write(explaining, results(explaining, maps), [*maps.values()])
        drawn = page.read(place)
        flat = drawn_on(settings.data, mask=test.store.mask)
        if flat is not None and len(flat.sides) == 2:
            _write_surfaces(explaining, drawn, flat)
        written = page.write(place)
    for one in drawn.results:
        print(page.sentence(one), flush=True)
    print(f"page: {written}", flush=True)
    if (system.results_folder(settings) / "metrics.json").is_file():
        print(next_step("glfa_jax.report", system.results_folder(settings)), flush=True)


def _matters(explaining: Explaining) -> dict[str, Any]:
    """What the parts depend on besides what samples do."""
    own, areas = explaining.settings.explain, explaining.areas
    state = hashlib.sha256(json.dumps(areas.names).encode())
    state.update(areas.number.astype(np.int32).tobytes())
    return {
        "explain.scores": list(explaining.names),
        "explain.areas": f"{areas.source} ({state.hexdigest()[:8]})",
        "explain.steps": own.steps,
        "explain.orders": own.orders,
        "explain.draws": own.draws if VIDEO in explaining.names else None,
    }


def _write(
    explaining: Explaining, found: list[dict[str, Any]], maps: Sequence[dict[str, np.ndarray]]
) -> None:
    """maps: of each subject."""
    settings, areas, place = explaining.settings, explaining.areas, folder(explaining.settings)
    subjects = settings.protocol.test_subjects
    savez_atomically(
        place / page.ARRAYS,
        mask=areas.number >= 0,
        areas=areas.number,
        names=np.array(areas.names),
        subjects=np.array(subjects),
        scores=np.array(explaining.names),
        gradient=np.stack([one["gradient_mean"] for one in maps]).astype(np.float32),
        gradient_std=np.stack([one["gradient_std"] for one in maps]).astype(np.float32),
        occlusion=np.stack([one["occlusion"].mean(0) for one in maps]).astype(np.float32),
        occlusion_std=np.stack([_spread(one["occlusion"]) for one in maps]).astype(np.float32),
    )
    content = {
        "format": page.FORMAT,
        "run": settings.name,
        "method": method_name(settings),
        "protocol": str(protocol_of(explaining.test, subjects)),
        "cotrain_steps": settings.cotrain.steps,
        "areas": {
            "source": areas.source,
            "names": list(areas.names),
            "shares": areas.shares.tolist(),
        },
        "results": found,
    }
    write_atomically(place / page.NUMBERS, json.dumps(content, indent=1) + "\n")


def _spread(values: np.ndarray) -> np.ndarray:
    return values.std(0, ddof=1) if len(values) > 1 else np.zeros(values.shape[1:])


def _write_surfaces(explaining: Explaining, drawn: page.Contributions, flat: FlatMap) -> None:
    """Maps per 1 % of the cortex, as the page draws them, at the vertices of the mesh."""
    place, space = folder(explaining.settings), surfaces.mesh_of(explaining.settings.data)
    entity = "" if space is None else f"_space-{space}"
    for subject in explaining.settings.protocol.test_subjects:
        maps = {f"{score}, {by}": x for (who, score, by), x in drawn.maps.items() if who == subject}
        halves = {
            name: np.split(flat.to_surface(x.astype(np.float32)), [flat.sides[0]])
            for name, x in maps.items()
        }
        for i, side in enumerate(SIDES):
            name = f"sub-{subject}_hemi-{side[0].upper()}{entity}_contributions.func.gii"
            write_values(place / name, {key: half[i] for key, half in halves.items()}, side=side)


def command(arguments: Sequence[str] | None = None) -> int:
    return run_main(main, arguments, command="eval.explain", description=__doc__)
