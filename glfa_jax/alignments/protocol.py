"""What every alignment can do, and what its author writes: `layer` and `solve`."""

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key

from glfa_jax.config import Adapt, Config
from glfa_jax.convert.directory import read_tensors, write_tensors
from glfa_jax.convert.mapping import Table, export_views, import_params
from glfa_jax.errors import InputError
from glfa_jax.models.config_values import misfits
from glfa_jax.ops.local_conv import Box

SHARED = "*"  # the layer of every subject who has none of his own, among parameters by subject

_TOGETHER = 64  # maps that go through a layer at once

Needs = Literal["nothing", "anatomy", "unlabelled", "paired"]  # the least first


class Brains(NamedTuple):
    """Anatomy of a new subject and of training subjects, and where the latter's function lies.

    own, theirs: the same k maps of each, such as curvature, in any units; zero off the cortex.
    shifts: of training subjects, as `Alignment.shift` gives them.
    """

    own: Float[np.ndarray, "k height width"]
    theirs: Float[np.ndarray, "s k height width"]
    shifts: Float[np.ndarray, "s height width 2"]


class Group(NamedTuple):
    """The subjects whom a new one is aligned to.

    maps: in the common space, z-scores, a window of each clip and subject. Of the clips of the new
        subject's maps where the method needs pairs, else of any; there may be none where a method
        is given targets.
    mask: where the cortex lies.
    start: parameters of a layer to begin from; of a fresh one when left out.
    brains: for a method that needs anatomy. connectivity: the mean over the subjects, of as many
        parcels as the method takes, in place of maps for a method that goes by it alone.
    """

    maps: Float[np.ndarray, "s n w height width"]
    mask: Bool[np.ndarray, "height width"]
    start: dict | None = None
    brains: Brains | None = None
    connectivity: Float[np.ndarray, "k height width"] | None = None


class Fitted(NamedTuple):
    """The parameters of one subject's layer, and how far it moved the maps.

    report: mean squares over the cortex: `change`, of aligned from original maps, and where there
        are targets `distance_before` and `distance_after`, of the maps from them.
    """

    params: dict
    report: dict[str, float]


@dataclass(frozen=True)
class Alignment(ABC):
    """A method that brings maps into a common space; its fields are its options.

    needs: the least that a new subject's layer can be fitted to: `nothing` (there is nothing to
        fit), maps of his `anatomy` and no fMRI, `unlabelled` maps beside those of a group, or maps
        `paired` with those that others have of the same clips. A method that needs no pairs may use
        them where it is given targets.
    trainable: whether stage 2 trains the layers together with the encoder. Layers of a method that
        needs maps and does not train are fitted to the training subjects before stage 2 and stay.
    table: names of the parameters on disk, where they are not the layer's own.

    Parameters of a group are a dict by subject, with those of one shared layer under `SHARED`.
    """

    name: ClassVar[str]  # set by `register`
    needs: ClassVar[Needs]
    trainable: ClassVar[bool] = False
    table: ClassVar[Table] = Table()

    @abstractmethod
    def layer(self, maps_shape: tuple[int, int], *, box: Box | None = None) -> nn.Module:
        """The linen module that takes maps (..., height, width) of one subject to maps alike.

        Pixels outside the cortex are zero and must stay zero. box: where maps may differ from zero,
        if known.
        """

    @abstractmethod
    def solve(
        self,
        maps: Float[np.ndarray, "n w height width"],
        *,
        targets: Float[np.ndarray, "n w height width"] | None,
        group: Group,
        settings: Adapt,
        seed: int,
    ) -> dict:
        """The parameters of the layer of the subject of these maps; arguments as of `fit`."""

    @classmethod
    def from_settings(cls, settings: Config) -> Self:
        """The method with the options that a configuration gives it (`alignment.options`)."""
        return cls.from_options(settings.alignment.options, place="alignment.options")

    @classmethod
    def from_options(cls, options: Mapping[str, Any], *, place: str) -> Self:
        """Raises InputError, which names the place, for options that the method does not have."""
        known = [field.name for field in fields(cls)]
        if strangers := sorted(set(options) - set(known)):
            raise InputError(
                f"{place}: {', '.join(strangers)}, but the options of alignment.method {cls.name} "
                f"are {', '.join(known) or 'none'}"
            )
        if problems := misfits(options, module=cls):
            raise InputError(f"{place}: {'; '.join(problems)}")
        return cls(**options)

    @property
    def beforehand(self) -> "Alignment | None":
        """What is fitted to the training subjects before anything is trained, and stays as it is:
        the whole, or nothing. With some of the layer's parameters trained and some not, the
        alignment that has the latter, under their names.
        """
        return None if self.trainable or self.needs == "nothing" else self

    def init(
        self, key: Key[Array, ""], *, maps_shape: tuple[int, int], subjects: Sequence[str] = ()
    ) -> dict[str, dict]:
        """Parameters that nothing was fitted to: of a layer of every subject, or of a shared one.

        maps_shape: height and width in pixels.
        """
        layer = self.layer(maps_shape)

        def fresh(key: Key[Array, ""]) -> dict:
            variables: Any = layer.init(key, jnp.zeros((1, *maps_shape)))
            return variables.get("params", {})

        keys = jax.random.split(key, len(subjects)) if subjects else [key]
        return dict(zip(subjects or (SHARED,), map(jax.jit(fresh), keys), strict=True))

    def apply(
        self, params: Mapping[str, dict], maps: Float[Array, "*b height width"], *, subject: str
    ) -> Float[Array, "*b height width"]:
        """A subject's maps in the common space.

        params: by subject, as `init` gives them; a subject without his own takes the shared ones.
        Raises InputError where there are neither.
        """
        own = params.get(subject, params.get(SHARED))
        if own is None:
            raise InputError(f"subject {subject}: has no alignment, only {', '.join(params)} have")
        height, width = maps.shape[-2:]
        return apply_layer(self.layer((height, width)), own, maps)

    def fit(
        self,
        maps: Float[np.ndarray, "n w height width"],
        *,
        targets: Float[np.ndarray, "n w height width"] | None,
        group: Group,
        settings: Adapt = Adapt(),  # noqa: B008 - it is frozen
        seed: int = 0,
    ) -> Fitted:
        """Fits a layer to a new subject, in memory.

        maps: z-scores, one window of w volumes of each of n clips. targets: what the maps should
        be in the common space, such as the mean of the others' aligned maps of the same clips;
        None where nobody else saw them: a method that needs no pairs then goes by `group.maps`,
        and one that needs anatomy alone by `group.brains`; of no clips maps may be, then.
        settings: of methods that descend a gradient.

        Raises InputError for maps that the method cannot be fitted to, and for a method whose
        `solve` gives other parameters than its layer has or whose layer fills pixels outside the
        cortex.
        """
        if self.needs == "nothing":
            raise InputError(f"alignment.method: {self.name} has nothing to be fitted")
        if self.needs == "paired" and targets is None:
            raise InputError(f"alignment.method: {self.name} needs what others have of the clips")
        shape = (*maps.shape[:-2], *group.mask.shape)
        for what, held in (("maps", maps), ("targets", targets)):
            if held is not None and (held.shape != shape or len(shape) != 4):
                raise InputError(
                    f"{what}: have the shape {held.shape}, must be (clips, volumes, height, "
                    f"width) with the mask's {group.mask.shape} and the same in maps and targets"
                )
            if held is not None and not np.isfinite(held).all():
                raise InputError(f"{what}: hold numbers that are not finite")
        params = self.solve(maps, targets=targets, group=group, settings=settings, seed=seed)
        self._validate_params(params, maps_shape=group.mask.shape)
        layer = self.layer(group.mask.shape)
        aligned = aligned_in_parts(layer, params, maps)
        empty = ~(group.mask | maps.any((0, 1)))
        if (empty & aligned.any((0, 1))).any():
            raise InputError(
                f"alignment.method: the layer of {self.name} fills pixels outside the cortex, "
                "must leave those zero that are zero"
            )
        wanted = [None] * len(maps) if targets is None else targets
        clips = zip(maps, aligned, wanted, strict=True)
        return Fitted(jax.device_get(params), how_far(clips, mask=group.mask))

    def shift(
        self, params: dict, *, maps_shape: tuple[int, int]
    ) -> Float[np.ndarray, "height width 2"] | None:
        """Rows and columns from each pixel to where the layer fetches its signal; None where it
        does not come from one place."""
        return None

    def shapes(self, maps_shape: tuple[int, int]) -> dict:
        """The layer's parameters as `jax.ShapeDtypeStruct`."""
        init = partial(self.init, maps_shape=maps_shape)
        return jax.eval_shape(init, jax.random.key(0))[SHARED]

    def _validate_params(self, params: dict, *, maps_shape: tuple[int, int]) -> None:
        solved, wanted = _listed(params), _listed(self.shapes(maps_shape))
        if solved != wanted:
            raise InputError(
                f"alignment.method: solve of {self.name} gives {solved}, must give the parameters "
                f"of its layer, {wanted}"
            )

    def describe(self, maps_shape: tuple[int, int]) -> dict[str, Any]:
        """What config.json says of a layer on disk, for `registry.described` to read."""
        return {"method": self.name, "options": asdict(self), "maps_shape": list(maps_shape)}

    def save(
        self,
        folder: Path,
        params: dict,
        *,
        maps_shape: tuple[int, int],
        about: Mapping[str, Any] | None = None,
    ) -> None:
        """Writes one layer as safetensors, and `about` beside its description in config.json."""
        write_tensors(
            folder,
            export_views(params, self.table),
            config=self.describe(maps_shape) | dict(about or {}),
            filename="model.safetensors",
        )

    def load(self, folder: Path, *, maps_shape: tuple[int, int]) -> dict:
        """The parameters that `save` wrote; raises InputError where they are not the layer's."""
        shapes = self.shapes(maps_shape)
        return import_params(read_tensors(folder), shapes, self.table, dtype=np.float32)


@partial(jax.jit, static_argnums=0)
def apply_layer(
    layer: nn.Module, params: dict, maps: Float[Array, "*b height width"]
) -> Float[Array, "*b height width"]:
    """Maps through a layer with these parameters."""
    aligned: Any = layer.apply({"params": params}, maps)
    return aligned


def aligned_in_parts(
    layer: nn.Module, params: dict, maps: Float[np.ndarray, "*b height width"]
) -> Float[np.ndarray, "*b height width"]:
    """The same on the host, some maps after the other, so that only the result takes memory.

    The pieces are of one size, so that one compiled program serves all.
    """
    flat = maps.reshape(-1, *maps.shape[-2:])
    size = min(_TOGETHER, len(flat))
    found = np.empty(flat.shape, np.float32)
    for start in range(0, len(flat), size or 1):
        piece = flat[start : start + size].astype(np.float32)
        filled = np.pad(piece, ((0, size - len(piece)), (0, 0), (0, 0)))
        aligned = apply_layer(layer, params, jnp.asarray(filled))
        found[start : start + size] = aligned[: len(piece)]
    return found.reshape(maps.shape)


def _listed(params: dict) -> str:
    """Names and shapes."""
    found = jax.tree_util.tree_leaves_with_path(params)
    name = partial(jax.tree_util.keystr, simple=True, separator="/")
    return ", ".join(f"{name(path)} {np.shape(leaf)}" for path, leaf in found) or "none"


def how_far(
    clips: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray | None]],
    *,
    mask: Bool[np.ndarray, "height width"],
) -> dict[str, float]:
    """How far a layer moved maps, as `Fitted.report` has it.

    clips: of each clip its maps (..., height, width), the same aligned, and their targets if there
        are any. One after the other: copies of all would take more memory than most fits.
    """
    found: defaultdict[str, list[float]] = defaultdict(list)
    for own, aligned, target in clips:
        pairs = {"change": (aligned, own)}
        if target is not None:
            pairs |= {"distance_before": (own, target), "distance_after": (aligned, target)}
        for key, (one, two) in pairs.items():
            found[key].append(float(np.square((one - two)[..., mask]).mean()))
    return {key: float(np.mean(each)) for key, each in found.items()}
