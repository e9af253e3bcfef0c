"""Samples videos with a trained model, as one program on a mesh (SPEC §4)."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, UInt8
from numpy.typing import ArrayLike

from glfa_jax import config
from glfa_jax.alignments import Layer, with_layer
from glfa_jax.alignments.identity import Identity
from glfa_jax.convert.pretrained import Pretrained
from glfa_jax.diffusion.guidance import guided
from glfa_jax.generators import Generator
from glfa_jax.ops import attention
from glfa_jax.trained.model import Model
from glfa_jax.training.cpu_libraries import compiler_options
from glfa_jax.training.sharding import make_mesh, place_batch, place_params
from glfa_jax.training.step import matmul_precision

_MODEL = ""  # the model's own encoder among those of subjects


def variables_of(
    model: Model, encoders: Mapping[str, Pretrained], *, mesh: Mesh, from_bytes: int
) -> dict[str, dict]:
    """All parameters for each subject, on the mesh; what does not differ is there once.

    encoders: of each subject. from_bytes: `hardware.shard_from_bytes`.
    """
    own = {
        subject: {
            "encoder": encoder.variables,
            "denoiser": model.denoiser,
            "codec": model.codec,
        }
        for subject, encoder in encoders.items()
    }
    return placed_once(own, partial(place_params, mesh=mesh, copy=False, from_bytes=from_bytes))


def placed_once(trees: Any, place: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    """The trees with all leaves where `place` puts them; what is one leaf before is one there."""
    leaves, tree = jax.tree.flatten(trees)
    placed = place({str(id(x)): x for x in leaves})
    return jax.tree.unflatten(tree, [placed[str(id(x))] for x in leaves])


class VideoSampler:
    """Draws videos with a model, guided away from the encoding of an average window (SPEC §4).

    One compiled program per (steps, batch size, method of alignment): parameters, guidance scale
    and seed are arguments of it, and the average is encoded once. Rows of a batch lie over the
    mesh.
    """

    def __init__(
        self,
        model: Model,
        settings: config.Config,
        *,
        encoders: Mapping[str, Pretrained],
        negative: Float[ArrayLike, "w height width"],
    ):
        """encoders: the model's with the alignment layer of each subject that will be decoded, or
            one that was trained for that subject as well.

        negative: the average training window in the common space
        (`subject_alignment.average_window`), which the samples are pushed away from.
        """
        self._mesh = make_mesh(settings.hardware.mesh)
        self._settings = settings
        self._parts: tuple[dict[str, Any], Generator] | None = None
        self._encode_aligned = jax.jit(_of_aligned, static_argnames="encoder")
        self._encode = jax.jit(_of_maps, static_argnames="encoder")
        self._generate = jax.jit(
            self._program,
            static_argnames=("encoder", "steps"),
            compiler_options=compiler_options(self._mesh.devices.flat[0].platform),
        )
        self.load(model, encoders=encoders, negative=negative)

    def load(
        self,
        model: Model,
        *,
        encoders: Mapping[str, Pretrained],
        negative: Float[ArrayLike, "w height width"],
    ) -> None:
        """Takes another checkpoint of the same run in place of the one before; programs are kept.

        Raises ValueError for other modules than the programs were made of.
        """
        self._variables = {}  # else two models would be on the device
        hardware = self._settings.hardware
        dtype = jnp.dtype(hardware.compute_dtype)
        modules = {name: encoder.module.clone(dtype=dtype) for name, encoder in encoders.items()}
        parts = (modules, model.generator.computing(dtype=dtype))
        if self._parts not in (None, parts):
            raise ValueError("model: has other modules than the one before it")
        self._parts = parts
        # By the model's own encoder, as a subject's may have been trained for his maps; the average
        # is aligned already.
        bare = with_layer(model.encoder, Layer(Identity(), {}))
        # One program for all subjects of one method: parameters hold each one's alignment layer.
        self._variables = variables_of(
            model,
            {**encoders, _MODEL: bare},
            mesh=self._mesh,
            from_bytes=hardware.shard_from_bytes,
        )
        own = self._variables.pop(_MODEL)
        with matmul_precision(hardware):
            self._negative = self._encode_aligned(
                own["encoder"],
                jnp.asarray(negative, jnp.float32)[None],
                encoder=bare.module.clone(dtype=dtype),
            )

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
        """Videos in 8-bit RGB, of a batch or a part of one (`evaluation.batch_size`).

        clip: a clip's noise depends on it and on the seed alone, not on its place in a batch.
        scale: of guidance.
        """
        rows = {"fmri": fmri.astype(np.float32), "clip": np.asarray(clip, np.int32)}
        batch = place_batch({name: self._filled(x) for name, x in rows.items()}, self._mesh)
        numbers = (np.float32(scale), np.uint32(seed))
        given = (self._variables[subject], self._negative, batch, *numbers)
        with matmul_precision(self._settings.hardware):
            video = self._generate(*given, encoder=self._module(subject), steps=steps)
        return jax.device_get(video)[: len(clip)]

    def compiled(self) -> int:
        """How many programs were compiled for sampling so far."""
        generate: Any = self._generate
        return generate._cache_size()

    def condition(
        self, fmri: Float[np.ndarray, "b w height width"], *, subject: str
    ) -> Float[np.ndarray, "b n d"]:
        """The tokens that the generator is conditioned on."""
        variables = self._variables[subject]["encoder"]
        rows = jnp.asarray(self._filled(fmri.astype(np.float32)))
        with matmul_precision(self._settings.hardware):
            found = self._encode(variables, rows, encoder=self._module(subject))
        return jax.device_get(found)[: len(fmri)]

    def _module(self, subject: str) -> Any:
        assert self._parts is not None
        return self._parts[0][subject]

    def _filled(self, rows: np.ndarray) -> np.ndarray:
        """Repeated to a whole batch, so that one program serves all, and every device gets as many
        rows."""
        ways = self._mesh.shape["data"] * self._mesh.shape["fsdp"]
        count = max(len(rows), self._settings.evaluation.batch_size)
        return np.resize(rows, (-(-count // ways) * ways, *rows.shape[1:]))

    def _program(
        self,
        variables: dict,
        negative: Float[Array, "1 n d"],
        batch: dict[str, Array],
        scale: Float[Array, ""],
        seed: Int[Array, ""],
        *,
        encoder: Any,
        steps: int,
    ) -> UInt8[Array, "b f vheight vwidth 3"]:
        assert self._parts is not None
        generator = self._parts[1]
        data = self._settings.data
        shape = generator.latent_shape(data.frames, *data.resolution)
        with (
            jax.sharding.use_abstract_mesh(self._mesh.abstract_mesh),  # operations may ask for it
            attention.using(self._settings.hardware.attention),
        ):
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


def _of_aligned(
    variables: dict, x: Float[Array, "1 w height width"], *, encoder: Any
) -> Float[Array, "1 n d"]:
    return encoder.apply(variables, x, method="encode").condition


def _of_maps(
    variables: dict, x: Float[Array, "b w height width"], *, encoder: Any
) -> Float[Array, "b n d"]:
    return encoder.apply(variables, x).condition
