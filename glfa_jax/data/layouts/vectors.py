"""Responses as vectors of voxels, as some studies (CineBrain) publish them in place of scans."""

from pathlib import Path


def vectors_instead(folder: Path) -> str:
    """What there is to say of a subject's folder without scans that holds such vectors, or nothing.

    They do not tell where on the cortex a voxel lies, so that no map can be drawn of them.
    """
    found = next((path for place in ("*.npy", "*/*.npy") for path in folder.glob(place)), None)
    if found is None:
        return ""
    return (
        f"; {found.relative_to(folder)} and its like are vectors of voxels without a place on the "
        "cortex, which cannot be drawn as maps: use what fMRIPrep makes of the raw scans "
        "(docs/studies/cinebrain.md)"
    )
