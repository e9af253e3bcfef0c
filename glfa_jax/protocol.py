"""Whose brains are decoded, and from which store."""

from glfa_jax import config
from glfa_jax.data.store import Store
from glfa_jax.errors import InputError


def decoded_store(settings: config.Config, trained: Store) -> Store:
    """The store whose test clips are decoded: that of training, or `protocol.test_store`.

    Raises InputError where the decoder cannot take its samples.
    """
    path = settings.protocol.test_store
    store = trained if path is None else Store.open(path)
    for subject in settings.protocol.test_subjects:
        if subject not in store.attributes.subjects:
            raise InputError(
                f"protocol.test_subjects: {subject} is not in {store.path}, which holds "
                f"{', '.join(store.attributes.subjects)}"
            )
    if path is not None:
        if store.attributes.identity == trained.attributes.identity:
            raise InputError(
                f"protocol.test_store: {path} holds the very data that were trained on; leave it "
                "out, as its subjects are no others"
            )
        for what, theirs, ours in (
            ("maps", store.mask.shape, trained.mask.shape),
            ("volumes a window", store.attributes.window, trained.attributes.window),
            ("frames a clip", store.sample[0], settings.data.frames),
        ):
            if theirs != ours:
                raise InputError(
                    f"protocol.test_store: {path} holds {what} of {theirs}, the decoder was "
                    f"trained on {ours}; prepare it with the same data.map_size, window and frames"
                )
    return store
