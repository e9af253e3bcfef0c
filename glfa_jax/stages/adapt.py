"""Fits the alignment to a new subject; the rest stays as stage 2 left it, unless asked otherwise.

    python -m train.adapt --config configs/demo.yaml --subject 03 --minutes 4

GLFA's layer starts as the shared one, or as the identity where every training subject has its own,
and is drawn to where the training subjects' aligned maps of the same clips are, on average: the
loss of stage 2 without the generator's, so it takes seconds to minutes. Its scales are its own
(`adapt` in the configuration, which says why): with those of stage 2 it would hardly move. Methods
with a closed form are solved at once. `--method` takes another than the run's, such as ridge.

`--data` says what the layer is fitted to: the first minutes of the subject's training clips, pauses
not counted, `paired` with what training subjects have of the same clips; or `unlabelled`, for which
any clips do, shown to nobody else; or `unlabelled-test`, the very maps that will be decoded, which
is a result of another kind and is named so. No test clip's video or caption is ever used. Left out,
it is the least that the method needs: `--method anatomy` goes by maps of the subject's anatomy,
takes no fMRI of his and so no minutes. With `--set evaluation.adapted_minutes=4`, and what was
chosen, eval.sample and eval.score use the layer. To compare with a full fit, train a run of its own
with the subject among protocol.train_subjects.

`--encoder` is what lies between: behind the layer, the encoder is trained on the same clips as well
(`stages.encoder_fit`; `adapt.encoder` in the configuration says how). It needs paired clips.

Beside the layer lies index.html: how well the subject could be aligned, and how sure that is. For
the latter a layer is fitted to each half of the clips as well, unless it is trained in steps; that
takes as long as the fit again, at most twice as long.

A subject who was scanned after the run was trained comes in a store of his own, prepared alike:

    python -m train.adapt --config configs/demo.yaml --set protocol.test_store=data/new.zarr \
        --set "protocol.test_subjects=['04']" --subject 04 --minutes 4

Clips of both stores are the same by their names and captions.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from glfa_jax import alignments, config, system
from glfa_jax.alignments import Layer
from glfa_jax.alignments.descent import GROUPS, DescentAlignment
from glfa_jax.cli import next_step, run_main
from glfa_jax.data import pipeline
from glfa_jax.data.relief import relief_of
from glfa_jax.data.store import Store
from glfa_jax.errors import InputError
from glfa_jax.files import savez_atomically
from glfa_jax.ops.local_conv import bounding_box
from glfa_jax.protocol import decoded_store
from glfa_jax.report import new_subject
from glfa_jax.stages.anatomical import told_by_anatomy
from glfa_jax.stages.certainty import TRAINED, Certainty, certainty, is_quick
from glfa_jax.stages.clips_to_fit import clips_to_fit
from glfa_jax.stages.encoder_fit import fit_encoder, validate_clips
from glfa_jax.stages.fitting import Material, moved, read_maps
from glfa_jax.stages.running import complete, discard, run_stage, share, store_model
from glfa_jax.subject_alignment import (
    ENCODER,
    displacements,
    elsewhere,
    fitted_stage,
    layer_for,
    validate_current,
)
from glfa_jax.trained.model import validate_finished
from glfa_jax.training.checkpoints import mark_done
from glfa_jax.training.loop import (
    LossFn,
    check_unchanged,
    keep_config,
    use_compilation_cache,
    validate_unchanged,
)
from glfa_jax.training.processes import alone_in, is_main, say, start


def validate_new_subject(settings: config.Config, subject: str) -> None:
    """Only a trained run with alignment has something to fit, and only to a subject new to it."""
    protocol, known = settings.protocol, settings.data.subjects
    if protocol.test_store is not None:
        known = protocol.test_subjects
    if subject in protocol.train_subjects and protocol.test_store is not None:
        raise InputError(
            f"--subject: {subject} of {protocol.test_store} has the name of a subject that was "
            "trained on; prepare that store with another name"
        )
    if subject in protocol.train_subjects:
        raise InputError(f"--subject: {subject} was trained on, its alignment is part of the run")
    if subject not in known:
        names = ", ".join(name for name in known if name not in protocol.train_subjects)
        raise InputError(f"--subject: {subject} is none of the subjects to fit to: {names}")
    if not settings.aligned and settings.adapt.method is None:
        raise InputError(
            f"{settings.run_dir}: alignment is off in this run, nothing can be fitted but by a "
            "--method of its own, such as ridge"
        )
    alignments.data_for_strangers(settings)
    validate_finished(settings)


def loss_of(
    settings: config.Adapt,
    method: DescentAlignment,
    layer: nn.Module,
    *,
    theirs: Sequence[nn.Module],
) -> LossFn:
    """The method's loss, with the mean of the others' aligned maps for targets.

    theirs: the others' layers in order.

    A batch's windows are those of the others, in order, and last the new subject's. Frozen: the
    `others`' layers and the cortex `mask`.
    """

    def loss_fn(params: dict, frozen: Any, batch: Any, key: jax.Array):
        fmri, original = batch["fmri"][:, :-1], batch["fmri"][:, -1]
        present = batch["present"][:, :-1].astype(fmri.dtype)
        aligned: Any = [
            module.apply({"params": own}, fmri[:, i])
            for i, (module, own) in enumerate(zip(theirs, frozen["others"], strict=True))
        ]
        shares = present / present.sum(axis=1, keepdims=True)
        target = jnp.einsum("bs,sb...->b...", shares, jnp.stack(aligned))
        return method.loss(
            layer, params, maps=original, targets=target, mask=frozen["mask"], settings=settings
        )

    return loss_fn


def run(settings: config.Config, store: Store, *, subject: str, minutes: float) -> None:
    """`store`: of training; the subject may be of `protocol.test_store`."""
    name = fitted_stage(settings, subject=subject, minutes=minutes)
    folder, model = system.stage_folder(settings, name), system.model_folder(settings, name)
    new, data = decoded_store(settings, store), alignments.data_for_strangers(settings)
    others = settings.protocol.train_subjects
    shared = clips_to_fit(settings, store, new, subject=subject, minutes=minutes)
    if settings.adapt.with_encoder:
        validate_clips(len(shared.own))
    if model.is_dir():
        validate_current(settings, model)
    validate_unchanged(folder, settings.adapt)
    if complete(settings, name):
        if not (folder / new_subject.PAGE).exists():  # of an earlier version, or one cut short
            _write_page(folder)
        return
    stored = system.model_folder(settings, "cotrain") / "encoder"
    encoder = alignments.load_encoder(stored, box=bounding_box(store.mask))
    method = alignments.for_strangers(settings)
    material = Material(store, new, subject, data, shared, encoder, method)
    shifts = displacements(settings, encoder)
    # The training subjects' mean displacement, from which the new subject's is told.
    reference = None if shifts is None else shifts.mean(axis=0)
    about: dict[str, Any] = {"cotrain_steps": settings.cotrain.steps}
    if isinstance(method, DescentAlignment):
        params = _descend(settings, name, material, fingerprint=about.copy())
        sure, report = Certainty({}, {}, TRAINED), None
    else:
        if data == "anatomy":
            learned = told_by_anatomy(settings, name, material)
            (params, report), sure = learned.fitted, learned.sure
            about |= learned.about
        else:
            (params, report), sure = _solve(settings, name, material, reference=reference)
        if is_main():
            discard(model)  # of other steps
            mark_done(folder, step=settings.adapt.steps, metrics=report)
    behind = None
    if settings.adapt.with_encoder:
        behind = fit_encoder(settings, name, material, Layer(method, params))
        params = behind.layer.params
    if report is None:
        report = moved(settings, material, Layer(method, params))
    about |= {"subject": subject, "minutes": minutes, "clips": len(shared.own), "fitted_to": data}
    about |= {"data": new.attributes.identity, "others": others}
    drawn = sure.maps | relief_of(settings.data, mask=store.mask)
    shift = method.shift(params, maps_shape=store.mask.shape)
    if shift is not None and reference is not None:
        drawn["shift"] = shift - reference
        lengths = np.square(drawn["shift"][store.mask]).sum(-1)
        report = report | {"displacement_pixels": float(np.sqrt(lengths.mean()))}
    if behind is not None:
        report = report | behind.numbers
        about["encoder_fit"] = behind.about
    about |= {"report": report | sure.numbers, "not_measured": sure.not_measured}
    if is_main():
        savez_atomically(folder / new_subject.ARRAYS, mask=store.mask, **drawn)

    def write(place: Path) -> None:
        method.save(place, params, maps_shape=store.mask.shape, about=about)
        if behind is not None:
            module, whole = behind.encoder.module, behind.encoder.variables["params"]
            alignments.save_encoder(place / ENCODER, module, whole)

    store_model(settings, name, write)
    _write_page(folder)


def _write_page(folder: Path) -> None:
    if is_main():
        say(f"how well it went: {new_subject.write(folder)}")


def _solve(
    settings: config.Config,
    name: str,
    material: Material,
    *,
    reference: Float[np.ndarray, "h w 2"] | None,
) -> tuple[alignments.Fitted, Certainty]:
    """The layer from all maps at once, by a method that has a closed form or is as quick; and how
    sure it is, where that is quick as well."""
    method, clips = material.method, len(material.shared.own)
    say(f"== {name}: {method.name}, to {clips} {material.data} clips of subject {material.subject}")
    maps = read_maps(settings, material)
    options: Any = {"settings": settings.adapt, "seed": settings.seed}
    fitted = method.fit(maps.own, targets=maps.targets, group=maps.group, **options)
    if not is_quick(method):
        return fitted, Certainty({}, {}, TRAINED)
    say(f"{name}: each half of the clips as well, to say how sure the layer is")
    return fitted, certainty(method, maps, reference=reference, **options)


def _descend(
    settings: config.Config, name: str, material: Material, *, fingerprint: dict[str, Any]
) -> dict:
    """The layer, trained in steps as every stage is: it shows progress, saves and goes on."""
    store, new, subject, _, shared, encoder, method = material
    others = settings.protocol.train_subjects
    assert isinstance(method, DescentAlignment)
    beside = None if new is store else pipeline.Beside(new, (subject,), shared.own)
    start, shape = material.start, store.mask.shape
    if start is None:
        fresh = method.init(jax.random.key(settings.seed), maps_shape=shape)
        start = fresh[alignments.SHARED]
    theirs = [layer_for(settings, encoder, subject=other) for other in others]
    box = bounding_box(store.mask)
    return run_stage(
        settings,
        name,
        says=f"the alignment of subject {subject}, to {len(shared.own)} clips that "
        f"{' or '.join(others)} saw as well",
        init=start,
        frozen={
            "others": [layer.params for layer in theirs],
            "mask": jnp.asarray(store.mask, jnp.float32),
        },
        loss_fn=loss_of(
            settings.adapt,
            method,
            method.layer(shape, box=box),
            theirs=[layer.method.layer(shape, box=box) for layer in theirs],
        ),
        groups=GROUPS,
        fingerprint=fingerprint,
        batches=pipeline.windows(
            store,
            subjects=others if beside else (*others, subject),
            clips=shared.theirs,
            beside=beside,
            batch_size=settings.adapt.batch_size,
            seed=settings.seed,
            **share(settings),
        ),
    )


def main(
    settings: config.Config,
    *,
    subject: str,
    minutes: float | None = None,
    method: str | None = None,
    data: str | None = None,
    encoder: bool = False,
) -> None:
    start(settings.hardware.processes)
    use_compilation_cache()
    check_unchanged(settings.run_dir, settings)
    run_settings = settings
    chosen = settings.adapt.choosing(method=method, data=data, encoder=encoder)
    settings = config.overridden(settings, chosen)
    minutes = alignments.minutes_for_strangers(settings, minutes, key="--minutes")
    validate_new_subject(settings, subject)
    name = fitted_stage(settings, subject=subject, minutes=minutes)
    with alone_in(system.stage_folder(settings, name)):
        if settings.protocol.test_store is settings.results_dir is None:  # else it stays as it is
            keep_config(settings.run_dir, run_settings)
        run(settings, Store.open(settings.data.store), subject=subject, minutes=minutes)
    sets = (f"evaluation.adapted_minutes={minutes:g}", *chosen)
    words = [word for one in sets for word in ("--set", one)]
    file = settings.run_dir / "config.yaml"
    say(next_step("eval.sample", "--config", file, *words, *elsewhere(settings)))


def command(arguments: Sequence[str] | None = None) -> int:
    return run_main(
        main,
        arguments,
        command="train.adapt",
        description=__doc__,
        options={
            "subject": {"required": True, "help": "whom to fit to, such as 03"},
            "minutes": {
                "type": float,
                "help": "of clips to use; needed by all methods but anatomy",
            },
            "method": {"help": "of alignment, in place of the run's own (adapt.method)"},
            "data": {
                "choices": ["paired", "unlabelled", "unlabelled-test"],
                "help": "what to fit to (adapt.data)",
            },
            "encoder": {
                "action": "store_true",
                "help": "train the encoder behind the layer as well (adapt.encoder)",
            },
        },
    )
