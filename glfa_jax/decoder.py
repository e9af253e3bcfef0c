"""The trained decoder: fMRI windows in, video out, as one program on a mesh (SPEC §4)."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, UInt8

from glfa_jax import config, system
from glfa_jax.alignments import load_encoder
from glfa_jax.convert import pretrained
from glfa_jax.convert.pretrained import Pretrained
from glfa_jax.diffusion.guidance import guided
from glfa_jax.errors import InputError
from glfa_jax.generators import Generator
from glfa_jax.models import lora
from glfa_jax.starting import typed
from glfa_jax.subject_alignment import encoder_for
from glfa_jax.training.checkpoints import read_done, restore_params
from glfa_jax.training.sharding import make_mesh, place_batch, place_params


class Decoder(NamedTuple):
    """An fMRI encoder, and a generator with the parameters of its denoiser and its codec."""

    encoder: Pretrained
    generator: Generator
    denoiser: dict
    codec: dict


def validate_finished(settings: config.Config) -> None:
    """Raises InputError where `load_decoder` would find no model, or one of another length."""
    last = "lea" if settings.method == "lea" else "cotrain"
    finished = system.model_folder(settings, last).is_dir()
    if last == "cotrain":
        done = read_done(settings.run_dir / last)
        finished = finished and done is not None and done.step == settings.cotrain.steps
    if not finished:
        what = "the regression" if last == "lea" else "stage 2"
        raise InputError(
            f"{settings.run_dir}: {what} is not finished; run {typed('train.cotrain')} with this "
            "configuration first"
        )


def load_decoder(settings: config.Config, *, step: int | None = None) -> Decoder:
    """The model that stage 2 left in the run folder, with the foundation's codec.

    step: of a checkpoint of stage 2 that is still kept, in place of the finished model. With
    method `lea` the whole generator is the foundation's.
    """
    generator = system.generator(settings)
    codec = generator.load_codec()
    if settings.method == "lea":
        encoder = pretrained.load("lea", system.model_folder(settings, "lea"))
        return Decoder(encoder, generator, generator.load(), codec)
    folder = system.model_folder(settings, "cotrain")
    encoder = load_encoder(folder / "encoder")
    if step is None:
        return Decoder(encoder, generator, generator.load(folder), codec)
    trained = restore_params(settings.run_dir / "cotrain", step=step)
    params = _over(encoder.variables["params"], trained["encoder"])
    denoiser = _over(generator.load(), trained.get(generator.part, {}))
    if "lora" in trained:
        denoiser = lora.merge(denoiser, trained["lora"], scale=settings.cotrain.lora.scale)
    return Decoder(encoder._replace(variables={"params": params}), generator, denoiser, codec)


def _over(params: dict, trained: dict) -> dict:
    """What trains taken from `trained`; what never trains as `params` have it."""
    changed = {
        key: _over(params[key], value) if isinstance(value, dict) else value
        for key, value in trained.items()
    }
    return params | changed


def variables_of(
    decoder: Decoder, encoders: Mapping[str, Pretrained], *, mesh: Mesh, from_bytes: int
) -> dict[str, dict]:
    """All parameters for each subject, on the mesh; what does not differ is there once.

    encoders: of each subject. from_bytes: `hardware.shard_from_bytes`.
    """
    own = {
        subject: {
            "encoder": encoder.variables,
            "denoiser": decoder.denoiser,
            "codec": decoder.codec,
        }
        for subject, encoder in encoders.items()
    }
    leaves, tree = jax.tree.flatten(own)
    distinct = {str(id(x)): x for x in leaves}
    placed = place_params(distinct, mesh, copy=False, from_bytes=from_bytes)
    return jax.tree.unflatten(tree, [placed[str(id(x))] for x in leaves])


class VideoSampler:
    """Draws videos with a decoder, guided away from the encoding of an average window (SPEC §4).

    One compiled program per (steps, batch size): parameters, guidance scale and seed are arguments
    of it, and the average is encoded once. Rows of a batch lie over the mesh.
    """

    def __init__(
        self,
        decoder: Decoder,
        settings: config.Config,
        *,
        subjects: Iterable[str],
        negative: Float[Array, "w height width"],
    ):
        """subjects: that will be decoded; InputError for one without an alignment layer.

        negative: the average training window in the common space
        (`subject_alignment.average_window`), which the samples are pushed away from.
        """
        self._mesh = make_mesh(settings.hardware.mesh)
        self._settings, self._subjects = settings, tuple(subjects)
        self._parts: tuple[Any, Generator] | None = None
        self._encode = jax.jit(self._condition)
        self._generate = jax.jit(self._program, static_argnames="steps")
        self.load(decoder, negative=negative)

    def load(self, decoder: Decoder, *, negative: Float[Array, "w height width"]) -> None:
        """Takes another checkpoint of the same run in place of the one before; programs are kept.

        Raises ValueError for other modules than the programs were made of.
        """
        self._variables = {}  # else two models would be on the device
        settings, hardware = self._settings, self._settings.hardware
        encoders = {
            subject: encoder_for(settings, decoder.encoder, subject=subject)
            for subject in self._subjects
        }
        encoder = next(iter(encoders.values())).module
        dtype = jnp.dtype(hardware.compute_dtype)
        parts = (encoder.clone(dtype=dtype), decoder.generator.computing(dtype=dtype))
        if self._parts not in (None, parts):
            raise ValueError("decoder: has other modules than the one before it")
        self._parts = parts
        # One program for all subjects: the parameters hold each one's alignment layer.
        self._variables = variables_of(
            decoder, encoders, mesh=self._mesh, from_bytes=hardware.shard_from_bytes
        )
        shared = next(iter(self._variables.values()))
        self._negative = self._encode(shared["encoder"], jnp.asarray(negative, jnp.float32)[None])

    def __call__(
        self,
        fmri: Float[np.ndarray, "b w height width"],
        *,
        subject: str,
        clip: Int[np.ndarray, " b"],
        scale: float,
        seed: int,
        steps: int,
    ) -> UInt8[np.ndarray, "b f vheight vwidth 3"]:
        """Videos in 8-bit RGB.

        clip: a clip's noise depends on it and on the seed alone, not on its place in a batch.
        scale: of guidance.
        """
        ways = self._mesh.shape["data"] * self._mesh.shape["fsdp"]
        filled = -(-len(clip) // ways) * ways  # every device gets as many rows
        rows = {"fmri": fmri.astype(np.float32), "clip": np.asarray(clip, np.int32)}
        rows = {name: np.resize(x, (filled, *x.shape[1:])) for name, x in rows.items()}
        batch = place_batch(rows, self._mesh)
        numbers = (np.float32(scale), np.uint32(seed))
        variables = self._variables[subject]
        video = self._generate(variables, self._negative, batch, *numbers, steps=steps)
        return jax.device_get(video)[: len(clip)]

    def compiled(self) -> int:
        """How many programs were compiled for sampling so far."""
        generate: Any = self._generate
        return generate._cache_size()

    def _condition(
        self, variables: dict, x: Float[Array, "1 w height width"]
    ) -> Float[Array, "1 n d"]:
        assert self._parts is not None
        return self._parts[0].apply(variables, x, method="encode").condition

    def _program(
        self,
        variables: dict,
        negative: Float[Array, "1 n d"],
        batch: dict[str, Array],
        scale: Float[Array, ""],
        seed: Int[Array, ""],
        *,
        steps: int,
    ) -> UInt8[Array, "b f vheight vwidth 3"]:
        assert self._parts is not None
        encoder, generator = self._parts
        data = self._settings.data
        shape = generator.latent_shape(data.frames, *data.resolution)
        with jax.sharding.use_abstract_mesh(self._mesh.abstract_mesh):  # operations may ask for it
            condition = encoder.apply(variables["encoder"], batch["fmri"]).condition
            denoise = guided(
                lambda x, t, c: generator.denoise(variables["denoiser"], x, t, c),
                condition=condition,
                negative=negative,
                scale=scale,
            )
            root = jax.random.key(seed)
            noise = jax.vmap(lambda i: jax.random.normal(jax.random.fold_in(root, i), shape))(
                batch["clip"]
            )
            method = self._settings.evaluation.sampler
            latents = generator.sample(denoise, noise, steps=steps, method=method)
            video = generator.decode(variables["codec"], latents)
        return jnp.round((jnp.clip(video, -1, 1) + 1) * 127.5).astype(jnp.uint8)
