"""LEA carried over to video, the baseline of SPEC §6.3: a regression in place of stages 1 and 2.

    python -m train.cotrain --config configs/demo.yaml --set method=lea --set run_dir=runs/demo-lea

Ridge regression in closed form, without intercept, from the frozen encoder's [CLS] features of a
window to what the generator's text encoder makes of the clip's caption, and to CLIP's embedding of
the clip, averaged over its frames. The generator stays as it is.

As in the original, predictions are standardised and mapped to the mean and the deviation of real
targets. The original takes both statistics from the test set, which makes it transductive; here
they are the training set's, so that a test clip is decoded by itself and nothing of the test split
is read. Its penalty of 500 was chosen for its authors' data; with `lea.alpha: auto` it is chosen on
the training samples: one training subject is predicted from another (`ops.ridge_penalty`).
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from tqdm import tqdm

from glfa_jax import config, system
from glfa_jax.convert import pretrained
from glfa_jax.convert.pretrained import Pretrained
from glfa_jax.data.layouts import Split
from glfa_jax.data.store import Store
from glfa_jax.data.video import unit_range
from glfa_jax.errors import InputError
from glfa_jax.files import write_atomically
from glfa_jax.models.lea import Lea, cls_of
from glfa_jax.ops.ridge import Ridge, RidgeFit, rescaled
from glfa_jax.ops.ridge_penalty import Choice, Halves, alpha_of
from glfa_jax.stages import pretrain
from glfa_jax.stages.running import compute_in, store_model
from glfa_jax.trained.data import FOLDER
from glfa_jax.trained.run import kept_of
from glfa_jax.training.processes import say

NAME = "lea"
PENALTY = "penalty.json"  # what `Penalty` says, beside the model


@dataclass(frozen=True)
class Penalty:
    """alpha: of the regression. correlations: where it was chosen, mean correlation of predictions
    of one half of the training samples by the other, by alpha over the number of samples and the
    features' mean square.
    """

    alpha: float
    correlations: Mapping[str, float] = field(default_factory=dict)


def chosen(choice: Choice, samples: Ridge) -> Penalty:
    correlations = {f"{share:g}": round(r, 4) for share, r in choice.correlations.items()}
    return Penalty(float(alpha_of(choice.share, samples)), correlations)


class Targets:
    """Of clips: the caption's tokens as the generator is given them, CLIP's embedding.

    split: training clips but where a penalty is judged afterwards.
    """

    def __init__(self, settings: config.Config, store: Store, *, split: Split = "train"):
        generator, clip = system.generator(settings), system.load_clip(settings.foundation)
        text = generator.load_text_encoder(compute_dtype=jnp.float32)
        condition = system.condition_of(settings, generator)
        self.shape = (condition["tokens"], condition["token_dim"])
        self.clip_dim = clip.model.module.projection_dim
        self._store = store
        self._split: Split = split
        tokenize = system.caption_tokenizer(settings, generator)
        self._captions = tokenize(store.attributes.captions[split])
        self._variables = jax.tree.map(jnp.asarray, (text.variables, clip.model.variables))

        @jax.jit
        def compute(variables: tuple[dict, dict], captions: jax.Array, video: jax.Array):
            hidden: Any = text.module.apply(variables[0], captions)
            frames = clip.preprocess(video.reshape(-1, *video.shape[2:]))
            image: Any = clip.model.module.apply(variables[1], frames, method="image_features")
            image = image / jnp.linalg.norm(image, axis=-1, keepdims=True)
            image = image.reshape(*video.shape[:2], -1).mean(axis=1)
            return jnp.concatenate([hidden.hidden.reshape(len(captions), -1), image], axis=-1)

        self._compute = compute

    def of(self, clips: ndarray) -> Float[ndarray, "b q"]:
        """All tokens one after the other, then the embedding."""
        video = unit_range(self._store.video(self._split, clips))
        return jax.device_get(self._compute(self._variables, self._captions[clips], video))


def encoder_of(settings: config.Config, module: Lea) -> dict:
    """Parameters of the pretrained autoencoder's encoder."""
    folder = system.model_folder(settings, pretrain.NAME)
    trained = pretrained.load("fmri_autoencoder", folder, stored=True).variables["params"]
    names = pretrained.parameter_shapes("lea", module)["encoder"]
    return {name: trained[name] for name in names}


def features_of(settings: config.Config, module: Lea, encoder: dict) -> Callable[[ndarray], Any]:
    """Windows (b, s, w, height, width) to features (b, s, p), as sampling computes them."""
    computing = module.clone(dtype=compute_in(settings)["dtype"])
    variables = jax.tree.map(jnp.asarray, {"params": {"encoder": encoder}})

    @jax.jit
    def compute(variables: dict, fmri: jax.Array) -> jax.Array:
        features: Any = computing.apply(variables, fmri.astype(jnp.float32), method="features")
        return cls_of(features).astype(jnp.float32)

    return lambda fmri: jax.device_get(compute(variables, fmri))


def clips_of(settings: config.Config, store: Store) -> Int[ndarray, " n"]:
    """Train clips that a train subject has seen. Raises InputError where one has no caption."""
    present = store.present("train", subjects=settings.protocol.train_subjects)
    clips = np.flatnonzero(present.any(axis=1))
    captions = store.attributes.captions["train"]
    wordless = [store.attributes.clips["train"][i] for i in clips if not captions[i].strip()]
    if wordless:
        raise InputError(
            f"{store.path}: {len(wordless)} of {len(clips)} train clips have no caption, the first "
            f"is {wordless[0]}; method lea learns to predict captions: give every clip one"
        )
    return clips


def parameters(fit: RidgeFit, *, split: int) -> dict[str, dict[str, Any]]:
    """Of the linear maps to the first `split` targets and to the rest, the rescaling folded in."""
    weights = rescaled(fit)

    def linear(columns: slice) -> dict[str, Any]:
        maps = {"kernel": weights[:, columns], "bias": fit.targets_mean[columns]}
        return {"centre": fit.features_mean, "linear": maps}

    return {"to_tokens": linear(slice(split)), "to_image": linear(slice(split, None))}


def second_half(store: Store, clips: ndarray, subject: ndarray, subjects: int) -> ndarray:
    """Which samples check the penalty that is fitted on the others, and the other way round.

    clips, subject: of every sample. Every other subject's; of one subject, those of the second half
    of the clips, so that neighbours in a film and showings of one clip stay together.
    """
    if subjects > 1:
        return subject % 2 == 1
    order = {name: i for i, name in enumerate(dict.fromkeys(store.attributes.clips["train"]))}
    place = np.array([order[store.attributes.clips["train"][clip]] for clip in clips], int)
    return place >= len(order) / 2


def fit_model(settings: config.Config, store: Store) -> tuple[Lea, dict, Penalty]:
    """The model and its parameters, from the train windows of the train subjects, and the penalty.

    Reads nothing of the test split and of other subjects.
    """
    subjects = settings.protocol.train_subjects
    present, clips = store.present("train", subjects=subjects), clips_of(settings, store)
    targets = Targets(settings, store)
    tokens, token_dim = targets.shape
    module = system.lea(settings, tokens=tokens, token_dim=token_dim, clip_dim=targets.clip_dim)
    encoder = encoder_of(settings, module)
    features = features_of(settings, module, encoder)

    split = tokens * token_dim
    size = {"features": module.window * module.dim, "targets": split + targets.clip_dim}
    ridge, halves, alpha = Ridge(**size), Halves(**size), settings.lea.alpha
    at_once = max(settings.lea.batch_size // len(subjects), 1)
    with tqdm(total=len(clips), unit="clip", desc=NAME) as bar:
        for start in range(0, len(clips), at_once):
            # The last batch is filled up, so that one program serves all.
            batch = clips[start : start + at_once]
            filled = np.resize(batch, at_once)
            seen = features(store.fmri("train", filled, subjects=subjects))
            shown = targets.of(filled)
            row, subject = np.nonzero(present[batch])
            ridge.add(seen[row, subject], targets=shown[row])
            second = second_half(store, batch[row], subject, len(subjects))
            halves.add(seen[row, subject], targets=shown[row], second=second)
            bar.update(len(batch))
    penalty = chosen(halves.choose(), ridge) if alpha == "auto" else Penalty(alpha)
    fit = ridge.solve(alpha=penalty.alpha)
    params = {"encoder": encoder, **parameters(fit, split=split)}
    return module, jax.tree.map(lambda x: np.asarray(x, np.float32), params), penalty


def run(settings: config.Config, store: Store) -> None:
    if system.model_folder(settings, NAME).is_dir():
        say(f"{NAME}: finished already")
        return
    clips_of(settings, store)  # rejected before anything is trained
    pretrain.run(settings, store)
    say(
        f"== {NAME}: ridge regression to captions and images, on train windows of subjects "
        f"{', '.join(settings.protocol.train_subjects)}"
    )

    def write(folder: Path) -> None:
        module, params, penalty = fit_model(settings, store)
        how = "chosen on the training samples" if penalty.correlations else "as configured"
        say(f"{NAME}: alpha {penalty.alpha:.3g}, {how}")
        write_atomically(
            system.stage_folder(settings, NAME) / PENALTY, json.dumps(asdict(penalty)) + "\n"
        )
        system.save_own(NAME, folder, module, params)
        encoder = Pretrained(module, {"params": params})
        kept_of(settings, encoder, store=store).save(folder / FOLDER)

    store_model(settings, NAME, write)
    say(f"{NAME}: finished")
