"""Which methods of a study answer one question: those of one protocol, which alone are compared."""

from glfa_jax import config
from glfa_jax.report.words import listing, subjects_text
from glfa_jax.results import protocol_text


def by_protocol(study: config.Study) -> list[list[str]]:
    """The study's methods, grouped by what eval.compare can compare."""
    groups: dict[tuple, list[str]] = {}
    for method in study.methods:
        groups.setdefault(_question(_first(study, method)), []).append(method)
    return list(groups.values())


def folders(study: config.Study) -> dict[str, list[str]]:
    """Methods of one protocol by the folder of their comparison, below the study's.

    The reference's is the study's own, "". Others are called by their kind of protocol, where
    several are of one kind by their first method as well.
    """
    groups = by_protocol(study)
    kinds = [_first(study, methods[0]).protocol.kind() for methods in groups]
    found = {}
    for kind, methods in zip(kinds, groups, strict=True):
        own = kind if kinds.count(kind) == 1 else f"{kind}-{study.folder(methods[0])}"
        found["" if study.reference in methods else own] = methods
    return found


def described(study: config.Study) -> str:
    """One sentence on the reference's protocol, and one on each other and its methods."""
    sentences = []
    for methods in by_protocol(study):
        words = _words(_first(study, methods[0]))
        if study.reference in methods:
            sentences.insert(0, f"Protocol: {words}.")
        else:
            names = listing([f'"{method}"' for method in methods])
            sentences.append(f"Of another protocol: {names} ({words}).")
    return " ".join(sentences)


def _first(study: config.Study, method: str) -> config.Config:
    """Seeds differ in no protocol."""
    return study.cell(method, study.seeds[0])


def _question(own: config.Config) -> tuple:
    protocol = own.protocol
    # Stores of one study that was cleaned in several ways answer one question.
    data = own.data.model_dump_json(exclude={"store", "clean", "workers", "latents"})
    return (
        protocol.kind(),
        protocol.pretraining,
        tuple(sorted(protocol.train_subjects)),
        tuple(sorted(protocol.test_subjects)),
        data,
        protocol.test_store,
        own.evaluation.clips,
    )


def _words(own: config.Config) -> str:
    protocol, clips = own.protocol, own.evaluation.clips
    trained, decoded = own.data.store, protocol.test_store or own.data.store
    kind = (
        f"{protocol.kind()}, trained on {subjects_text(protocol.train_subjects)} of "
        f"{trained.name}, decoded {subjects_text(protocol.test_subjects)} of {decoded.name}"
        f"{'' if clips is None else f' ({clips} clips at most)'}"
    )
    return protocol_text(kind, protocol.pretraining, own.data.world)
