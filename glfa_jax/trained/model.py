"""What stage 2 left: encoder and generator with their parameters."""

from typing import NamedTuple

from glfa_jax import config, system
from glfa_jax.alignments import load_encoder
from glfa_jax.convert import pretrained
from glfa_jax.convert.pretrained import Pretrained
from glfa_jax.errors import InputError
from glfa_jax.generators import Generator
from glfa_jax.models import lora
from glfa_jax.starting import typed
from glfa_jax.training.checkpoints import read_done, restore_params


class Model(NamedTuple):
    """An fMRI encoder, and a generator with the parameters of its denoiser and its codec."""

    encoder: Pretrained
    generator: Generator
    denoiser: dict
    codec: dict


def last_stage(settings: config.Config) -> str:
    """The stage whose model decodes."""
    return "cotrain" if settings.cotrains else "lea"


def validate_finished(settings: config.Config) -> None:
    """Raises InputError where `load_model` would find no model, or one of another length."""
    last = last_stage(settings)
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


def load_model(settings: config.Config, *, step: int | None = None) -> Model:
    """The model that stage 2 left in the run folder, with the foundation's codec.

    step: of a checkpoint of stage 2 that is still kept, in place of the finished model. With
    method `lea` the whole generator is the foundation's, but for `lea.cotrain_generator`.
    """
    generator = system.generator(settings)
    codec, folder = generator.load_codec(), system.model_folder(settings, "cotrain")
    if settings.method == "lea":
        encoder = pretrained.load("lea", system.model_folder(settings, "lea"))
    else:
        encoder = load_encoder(folder / "encoder")
    if not settings.cotrains:
        return Model(encoder, generator, generator.load(), codec)
    if step is None:
        return Model(encoder, generator, generator.load(folder), codec)
    trained = restore_params(settings.run_dir / "cotrain", step=step)
    params = _over(encoder.variables["params"], trained.get("encoder", {}))
    start = generator.load(settings.cotrain.generator_from)
    denoiser = _over(start, trained.get(generator.part, {}))
    if "lora" in trained:
        denoiser = lora.merge(denoiser, trained["lora"], scale=settings.cotrain.lora.scale)
    return Model(encoder._replace(variables={"params": params}), generator, denoiser, codec)


def _over(params: dict, trained: dict) -> dict:
    """What trains taken from `trained`; what never trains as `params` have it."""
    changed = {
        key: _over(params[key], value) if isinstance(value, dict) else value
        for key, value in trained.items()
    }
    return params | changed
