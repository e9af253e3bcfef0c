"""Whether a finished store is what the settings ask for; only read, so it may lie write-protected.

`data.root` says where the study lies, not what is in it: a store goes with a study that was moved,
or alone to where there is no study.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from glfa_jax import config
from glfa_jax.data import DataError
from glfa_jax.data.layouts import cleaning_of, layout_of
from glfa_jax.data.pieces import hashed
from glfa_jax.data.store import Store

# Settings that change no number of the store.
FREE = ("store", "workers", "on_error", "latents")
# Settings younger than stores that are still in use, with what holds for those: not written down
# where they have this value, so that identities stay the same. Of `clean`, what is done is written
# down rather than what was asked for, unless nothing is done where nothing is usual.
YOUNGER = {"repetition_time": "agreeing", "films": None, "split": None, "clip_seconds": 4}


def settings_of(data: config.Data) -> dict[str, Any]:
    """All that decides what is in the store, as it is kept there: under the names that options had
    first, so that stores of all versions have one identity."""
    free = {*FREE, "clean", *(k for k, value in YOUNGER.items() if getattr(data, k) == value)}
    settings = data.model_dump(mode="json", exclude=free)
    kept = {new: old for old, new in data.former.items()}
    settings = {kept.get(key, key): value for key, value in settings.items()}
    if data.simulation is not None:
        settings["simulation"] = data.simulation.comparable()
    cleaning = cleaning_of(data)
    if cleaning.on or layout_of(data).clean.on:
        settings["clean"] = cleaning.comparable()
    return {**settings, "root": str(data.root.resolve())}


def reuse(data: config.Data) -> Store:
    """Raises DataError where the store is another one."""
    store = Store.open(data.store)
    settings = store.attributes.provenance.get("settings", {})
    if differing := list(_differing(settings, data)):
        raise DataError(
            f"{data.store}: was prepared with other settings ({', '.join(differing)}); remove it "
            "or choose another data.store"
        )
    moved = settings["root"] != str(data.root.resolve())
    if changed := _changed(store, data.root, moved=moved):
        what = f"is not as in {settings['root']}, where" if moved else "has changed since"
        raise DataError(
            f"{data.store}: {changed} {what} it was prepared; remove it or choose another "
            "data.store"
        )
    return store


def cleaning_in(store: Store) -> str:
    """What was taken out of the scans of a store, in words."""
    done = cleaning_done(store)
    return json.dumps(done) if isinstance(done, dict) else done.words


def cleaning_done(store: Store) -> config.Cleaning | dict[str, Any]:
    """What was taken out of the scans of a store; as JSON where a version that has other options
    did it."""
    done: dict[str, Any] = store.attributes.provenance.get("settings", {}).get("clean") or {}
    try:
        return config.Cleaning(**done)
    except (ValueError, TypeError):
        return done


def uncleaned(store: Store, data: config.Data) -> str | None:
    """What is to be said of a store of before scans were cleaned, which is used all the same."""
    settings = store.attributes.provenance.get("settings", {})
    if "clean" in settings or data.clean is not None or not cleaning_of(data).on:
        return None
    return (
        f"{data.store}: was prepared before scans of layout {data.layout} were cleaned "
        f"({cleaning_of(data).words}); its maps are not cleaned, remove it to prepare it anew"
    )


def _differing(settings: dict[str, Any], data: config.Data) -> Iterator[str]:
    """Names of settings; those that a store of before does not have are at their defaults."""
    ours = data.model_dump(exclude={*FREE, "clean"})
    try:
        then = config.Data(**{**settings, "store": data.store})
    except (ValueError, TypeError):  # of a version that has other settings
        now = settings_of(data)
        yield from (key for key in now | settings if now.get(key) != settings.get(key))
        return
    theirs = then.model_dump(exclude={*FREE, "clean"})
    # Left out, the cleaning may also be none at all, in a store of before there was one.
    done = config.Cleaning() if then.clean is None else then.clean
    before = then.clean is None and data.clean is None
    if not before and done != cleaning_of(data):
        yield "clean"
    for key in ours:
        near = _near(ours[key], data.root) == _near(theirs[key], then.root)
        if key != "root" and not near and ours[key] != theirs[key]:
            yield key


def _near(tree: Any, root: Path) -> Any:
    """The same with every path as it is reached from the study."""
    if isinstance(tree, dict):
        return {key: _near(value, root) for key, value in tree.items()}
    if isinstance(tree, (tuple, list)):
        return [_near(value, root) for value in tree]
    return os.path.relpath(tree.resolve(), root.resolve()) if isinstance(tree, Path) else tree


def _changed(store: Store, root: Path, *, moved: bool) -> Path | None:
    """A file that is not what the store was made of; scans that were removed do not matter.

    Where the study was moved, all must be there, and some of every kind are read: of other scans
    that are not packed, the sizes are the same.
    """
    files = store.attributes.provenance.get("files", {})
    if moved and not (root.is_dir() and any(root.iterdir())):
        return None
    kinds: dict[str, list[str]] = {}
    for name, known in files.items():
        file = root / name
        if file.exists():
            kinds.setdefault(file.suffix, []).append(name)
            if file.stat().st_size != known["size"]:
                return file
        elif moved and not Path(name).is_absolute():  # those outside the study have not moved
            return file
    for names in kinds.values() if moved else ():
        for name in dict.fromkeys((names[0], names[len(names) // 2], names[-1])):
            if hashed(root / name)["sha256"] != files[name]["sha256"]:
                return root / name
    return None
