"""A decoder aligned to the very maps that it is to decode, with nothing known of what they show."""

from dataclasses import replace

from glfa_jax import alignments, config
from glfa_jax.data.one_run import NEW
from glfa_jax.decoder import Decoder
from glfa_jax.errors import InputError
from glfa_jax.files import reason
from glfa_jax.method import DATA
from glfa_jax.report.words import called
from glfa_jax.trained.group import its_store, mean_connectivity
from glfa_jax.trained.scans import RunMaps


def aligned_to(decoder: Decoder, run: RunMaps, *, method: str | None = None) -> tuple[Decoder, str]:
    """A decoder that knows the run's subject as `NEW`, and what was done in words.

    The layer is fitted to all whole windows of the run. method: of alignment, one that needs no
    shared clips; the decoder's own if that is one, else warp.

    Raises InputError for a method that needs more, and where neither the decoder nor a store here
    tells what to align to.
    """
    settings = decoder.settings
    if settings.method == "lea":
        raise InputError("--align: this decoder is a regression without alignment; leave it out")
    own = alignments.configured(settings) if settings.aligned else None
    if method is None and own is not None and own.needs == "unlabelled":
        chosen = own
    else:
        named = [f"adapt.method={method or 'warp'}", "adapt.data=unlabelled-test"]
        asked = config.overridden(settings, named)
        alignments.data_for_strangers(asked)  # rejects one that needs shared clips
        chosen = alignments.for_strangers(asked)
        if chosen.needs != "unlabelled":
            raise InputError(f"--method: {method} is not fitted to unlabelled maps; warp is")
    kept = decoder.trained_on
    if kept.connectivity is None:
        kept = replace(kept, connectivity=_from_store(decoder))
    knowing = replace(decoder, trained_on=kept)
    options = {} if chosen == type(chosen)() else vars(chosen)
    words = f"{called(chosen.name, options)}, fitted to {DATA['unlabelled-test']}"
    return knowing.adapt(run.every, subject=NEW, method=chosen), words


def _from_store(decoder: Decoder):
    settings = decoder.settings
    try:
        store = its_store(settings, identity=decoder.trained_on.timing.identity)
    except InputError as error:
        raise InputError(
            "--align: aligning needs the training subjects' connectivity, which this decoder does "
            f"not keep, or the store that it was trained on ({reason(error)}); export it again "
            "where that store is"
        ) from None
    return mean_connectivity(settings, decoder.model.encoder, store=store)
