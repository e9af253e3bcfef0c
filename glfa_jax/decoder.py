"""A trained decoder as an object: align, encode, decode, adapt to somebody new."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from jaxtyping import Float, UInt8
from numpy.typing import ArrayLike
from tqdm import tqdm

from glfa_jax import alignments, config, hub, system
from glfa_jax.alignments import SHARED, Group, Layer, align, layers_of, method_of, with_layer
from glfa_jax.convert.pretrained import Pretrained
from glfa_jax.data.one_run import NEW  # also whom `adapt` fits to, where no name is given
from glfa_jax.data.shown import showing_of
from glfa_jax.errors import InputError
from glfa_jax.explain.areas import of_numbers, squares
from glfa_jax.explain.maps import Contributions, contributions_of
from glfa_jax.trained import Trained
from glfa_jax.trained.data import clips_filling
from glfa_jax.trained.folder import write
from glfa_jax.trained.sampler import VideoSampler
from glfa_jax.trained.scans import RunMaps, maps_of


class Decoder(Trained):
    """Decodes flat maps of fMRI into video. Made by `glfa_jax.load` and `adapt`, not by hand.

    settings: the configuration that it was trained with.
    """

    @property
    def subjects(self) -> tuple[str, ...]:
        """Whom it knows by name: those of its training and its data, and whom it was adapted to."""
        known = (*self.settings.protocol.train_subjects, *self.settings.data.subjects)
        return tuple(dict.fromkeys((*known, *self.fitted)))

    def maps_of(
        self,
        files: Sequence[str | Path],
        *,
        events: str | Path | None = None,
        films: Sequence[str] = (),
        stimuli: str | Path | None = None,
        confounds: str | Path | None = None,
        repetition_time: float | None = None,
    ) -> RunMaps:
        """Scans of one run, cleaned and drawn as those that it was trained on (docs/decode.md).

        files: functional GIFTI, left and right, one dense CIFTI series, or one NIfTI of volumes.
        events: a table with `onset` in seconds; with neither this nor films, the whole run is cut
            into clips. films: each FILE[,onset=S][,start=S][,duration=S].
        stimuli: folder of what was shown. confounds: fMRIPrep's table, for a cleaning that needs
            it. repetition_time: seconds, where header and sidecar are mute or wrong.

        Raises InputError for scans that this decoder cannot take, in one sentence.
        """
        shown = [showing_of(film) for film in films]
        return maps_of(
            self,
            files,
            events=events,
            films=shown,
            stimuli=stimuli,
            confounds=confounds,
            repetition_time=repetition_time,
        )

    def align(
        self, maps: ArrayLike, *, subject: str | None = None
    ) -> Float[np.ndarray, "*b height width"]:
        """Maps in the common space of the training subjects, where the same stimulus looks alike.

        maps: (*b, height, width), z-scored BOLD on the flat map, zero outside the cortex.
        subject: whose they are, one of `subjects`; left out for somebody new, who gets the layer
            that all subjects share. Without an alignment (fMRI-PTE-V, LEA) maps come back as they
            are.

        Raises InputError for maps of another size or with values that are not finite, and for a
        subject who is unknown or has no layer.
        """
        given, key = _finite(maps, self.maps_shape[1:]), self.layer_of(subject)
        lea = self.settings.method == "lea"
        return given if lea else np.asarray(align(self._encoders[key], given))

    def encode(
        self, maps: ArrayLike, *, subject: str | None = None
    ) -> Float[np.ndarray, "clips tokens width"]:
        """The condition tokens, which the generator takes in place of a caption's (SPEC §2.3).

        Arguments and errors as of `decode`.
        """
        windows, key = self._windows(maps), self.layer_of(subject)
        parts = (windows[rows] for rows in self._batches(len(windows)))
        return np.concatenate([self._sampler.condition(part, subject=key) for part in parts])

    def decode(
        self,
        maps: ArrayLike,
        *,
        subject: str | None = None,
        guidance_scale: float | None = None,
        steps: int | None = None,
        seed: int | None = None,
        clips: Sequence[int] | None = None,
        progress: bool = False,
    ) -> UInt8[np.ndarray, "clips f vheight vwidth 3"]:
        """Videos in 8-bit RGB, sampled with guidance away from the average training map (SPEC §4).

        maps: (clips, window, height, width): the volumes of each clip, which follow its start by
            the haemodynamic lag, z-scored within their run, zero outside the cortex. Averages over
            repeats are smaller than training maps; the commands give them back their amplitude
            (`evaluation.test_maps`), here they are taken as they are.
        subject: as of `align`.
        guidance_scale, steps, seed: of sampling; left out, as in the configuration (`evaluation`,
            `seed`). One compiled program per (steps, batch size).
        clips: a number for each clip, on which its noise depends beside the seed; 0, 1, 2, ... if
            left out. With their places in the test split, the videos are those of eval.sample with
            `evaluation.test_maps: averaged`, bit for bit.

        Raises InputError for maps of another shape or with values that are not finite, for a
        subject who is unknown or has no layer, and for options that cannot be.
        """
        windows, layer = self._windows(maps), self.layer_of(subject)
        numbers = np.arange(len(windows)) if clips is None else np.asarray(clips)
        if numbers.shape != (len(windows),) or (numbers.dtype.kind not in "iu"):
            raise InputError(f"clips: must be {len(windows)} whole numbers, one for each clip")
        given = {"evaluation.guidance_scale": guidance_scale, "seed": seed}
        given["evaluation.sampling_steps"] = steps
        chosen = config.overridden(
            self.settings, [f"{key}={value}" for key, value in given.items() if value is not None]
        )
        evaluation = chosen.evaluation
        system.validate_steps("steps", evaluation.sampling_steps, self.model.generator)
        parts = self._batches(len(windows))
        videos = [
            self._sampler(
                windows[rows],
                subject=layer,
                clip=numbers[rows],
                scale=evaluation.guidance_scale,
                seed=chosen.seed,
                steps=evaluation.sampling_steps,
            )
            for rows in tqdm(parts, desc="decode", unit="batch", disable=not progress)
        ]
        return np.concatenate(videos)

    def contributions(
        self,
        maps: ArrayLike,
        *,
        subject: str | None = None,
        towards: ArrayLike | None = None,
        average: ArrayLike | None = None,
        areas: ArrayLike | None = None,
        progress: bool = False,
    ) -> Contributions:
        """Which cortex the prediction rests on: nothing is sampled (docs/explain.md).

        maps, subject: as of `decode`.
        towards: (clips, width), embeddings of what each clip shows, of unit length in CLIP's joint
            space; two clips or more. The score is then `image`, how near the contrastive head comes
            to them, else `condition`, how much is left of the condition tokens.
        average: (window, height, width), what cortex is replaced by. The average training window in
            the common space if left out; the commands take it from before the alignment,
            `Store.average`, which is the same without one.
        areas: (height, width), a whole number for every pixel of the cortex, of whatever areas are
            to be replaced one by one; about 60 squares if left out.

        Raises InputError as `decode`, and for embeddings, averages or areas that do not fit.
        """
        windows, key = self._windows(maps), self.layer_of(subject)
        mask, replacing = self.trained_on.mask, self.trained_on.average
        if average is not None:
            replacing = _finite(average, self.maps_shape, what="average")
            if replacing.ndim != 3:
                raise InputError(
                    f"average: {replacing.shape}, must be {self.maps_shape}, one window"
                )
        aims = None
        if towards is not None:
            aims, shape = np.asarray(towards), (len(windows), self.model.encoder.module.clip_dim)
            numbers = aims.dtype.kind in "fiu" and np.isfinite(aims).all()
            if aims.shape != shape or not numbers or len(aims) < 2:
                raise InputError(
                    f"towards: {aims.dtype} {aims.shape}, must be finite numbers {shape}, an "
                    "embedding of each of two clips or more"
                )
            if not self.settings.headed:
                raise InputError(
                    "towards: needs the contrastive head of stage 1, which this decoder does not "
                    "have; leave it out"
                )
        parts = (
            squares(mask, count=self.settings.explain.patches)
            if areas is None
            else of_numbers(np.asarray(areas), mask=mask)
        )
        return contributions_of(
            self._encoders[key],
            windows,
            average=replacing,
            areas=parts,
            towards=aims,
            hardware=self.settings.hardware,
            batch_size=self.settings.evaluation.batch_size,
            progress=progress,
        )

    def adapt(
        self,
        maps: ArrayLike,
        targets: ArrayLike | None = None,
        *,
        minutes: float | None = None,
        subject: str = NEW,
        group: ArrayLike | None = None,
        method: alignments.Alignment | None = None,
    ) -> "Decoder":
        """A decoder that knows a new subject: an alignment layer fitted to his maps, in memory.

        maps: (clips, window, height, width), of clips that he saw, as for `decode`.
        targets: of the same shape, what training subjects' maps of the same clips are in the common
            space, such as the mean over them of `align`; for methods that need pairs, as GLFA does.
        minutes: of video, as many of the first clips as fill them; all if left out.
        subject: the name by which the new decoder knows him.
        group: (subjects, clips, window, height, width), maps of training subjects in the common
            space, for methods that need no pairs; the targets if left out, and without those what
            an export keeps of the training subjects' connectivity.
        method: of alignment, such as `glfa_jax.alignments.get("ridge")()`; the decoder's own if
            left out.

        This decoder stays as it is. How the fit is done says `settings.adapt`.

        Raises InputError where the decoder has no alignment, for a training subject's name, and for
        maps that do not fit.
        """
        if subject in self.settings.protocol.train_subjects:
            raise InputError(f"subject: {subject} was trained on, has a layer already")
        if not subject.isalnum():
            raise InputError(f"subject: {subject!r}, must consist of letters and digits")
        if self.settings.method == "lea":
            raise InputError(
                "this decoder is a regression without alignment, nothing can be fitted"
            )
        chosen = method or method_of(self.model.encoder.module)
        if chosen.needs == "nothing":
            raise InputError("this decoder has no alignment, nothing can be fitted; name a method")
        shared = layers_of(self.model.encoder).get(SHARED)
        start = shared.params if shared is not None and shared.method == chosen else None
        own = self._windows(maps)
        if minutes is not None:
            count = clips_filling(
                minutes,
                seconds=self.trained_on.timing.clip_seconds,
                clips=len(own),
                key="minutes",
                these=f"all of the {len(own)} clips",
            )
            own = own[:count]
        wanted = None
        if targets is not None:
            wanted = self._windows(targets, what="targets")[: len(own)]
            if len(wanted) != len(own):
                raise InputError(
                    f"targets: {len(wanted)} clips, must be as many as the {len(own)} of maps"
                )
        known = None
        if group is not None:
            others = _finite(group, self.maps_shape, what="group")
        elif wanted is not None:
            others = wanted[None]
        else:
            others, known = np.zeros((0, *own.shape), np.float32), self.trained_on.connectivity
        fit = chosen.fit(
            own,
            targets=wanted,
            group=Group(others, self.trained_on.mask, start, connectivity=known),
            settings=self.settings.adapt,
            seed=self.settings.seed,
        )
        own = with_layer(self.model.encoder, Layer(chosen, fit.params))
        return replace(self, fitted={**self.fitted, subject: own})

    def layer_of(self, subject: str | None) -> str:
        """Whose alignment layer a subject's maps go through: his name, or * for the shared one.

        Raises InputError for a subject who is unknown or has no layer; None is somebody new.
        """
        if subject is not None and subject not in self.subjects:
            raise InputError(
                f"subject {subject}: is none of this decoder's, {', '.join(self.subjects)}; leave "
                "subject out for somebody new, or adapt the decoder first"
            )
        if subject in self._encoders:
            return str(subject)
        if SHARED not in self._encoders:
            whose = "somebody new" if subject is None else f"subject {subject}"
            raise InputError(
                f"{whose}: has no alignment layer, only {', '.join(self._encoders)} have "
                "(alignment.per_subject); adapt the decoder first"
            )
        return SHARED

    def export(self, folder: str | Path, *, licence: str | None = None) -> Path:
        """Writes all that decoding needs as one folder, which `glfa_jax.load` reads anywhere.

        folder: new or empty. licence: of the weights, an SPDX identifier, for the model card.
        """
        return write(self, Path(folder), licence=licence)

    def push(
        self,
        repository: str,
        *,
        private: bool = True,
        token: str | None = None,
        licence: str | None = None,
    ) -> str:
        """Sends an export to the Hugging Face hub, as `owner/name`; the address. See `export`."""
        hub.validate_name(repository)
        with TemporaryDirectory() as place:
            folder = self.export(Path(place, repository.rpartition("/")[2]), licence=licence)
            return hub.upload(folder, repository, private=private, token=token)

    @cached_property
    def _encoders(self) -> dict[str, Pretrained]:
        """By subject, each with his layer, with one that serves all others under `SHARED`."""
        whole = self.model.encoder
        if not self.settings.aligned:
            return {SHARED: whole, **self.fitted}
        layers = layers_of(whole, subjects=self.settings.protocol.train_subjects)
        return {key: with_layer(whole, one) for key, one in layers.items()} | dict(self.fitted)

    @cached_property
    def _sampler(self) -> VideoSampler:
        return VideoSampler(
            self.model,
            self.settings,
            encoders=self._encoders,
            negative=self.trained_on.average,
        )

    def _windows(
        self, maps: ArrayLike, *, what: str = "maps"
    ) -> Float[np.ndarray, "clips window height width"]:
        found = _finite(maps, self.maps_shape, what=what)
        if found.ndim != 4 or not len(found):
            raise InputError(
                f"{what}: {found.shape}, must be (clips, {', '.join(map(str, self.maps_shape))})"
            )
        return found

    def _batches(self, count: int) -> list[slice]:
        size = self.settings.evaluation.batch_size
        return [slice(start, start + size) for start in range(0, count, size)]


def _finite(maps: ArrayLike, shape: tuple[int, ...], *, what: str = "maps") -> np.ndarray:
    """Numbers in float32, of this shape behind axes of any length."""
    found = np.asarray(maps)
    if found.dtype.kind not in "fiu":
        raise InputError(f"{what}: hold {found.dtype}, must hold numbers")
    if found.shape[-len(shape) :] != shape:
        raise InputError(
            f"{what}: {found.shape}, must end in {shape}: the window and map_size of this decoder"
            if len(shape) == 3
            else f"{what}: {found.shape}, must end in {shape}, the map_size of this decoder"
        )
    found = found.astype(np.float32)
    if not np.isfinite(found).all():
        raise InputError(f"{what}: hold values that are not finite")
    return found
