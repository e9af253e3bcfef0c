"""Parsers of scanner files, surfaces and parcellations."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import h5py
import nibabel
import numpy as np
from nibabel.cifti2.cifti2 import Cifti2Image
from nibabel.cifti2.cifti2_axes import BrainModelAxis, LabelAxis, SeriesAxis
from nibabel.gifti.gifti import (
    GiftiDataArray,
    GiftiImage,
    GiftiLabel,
    GiftiLabelTable,
    GiftiMetaData,
)
from nilearn.surface import vol_to_surf  # noqa: F401  imported before the readers are forked
from scipy.spatial import Delaunay

from benchmarks.fuzz.parser import Parser
from glfa_jax import config
from glfa_jax.data import readers, regions, surfaces

VERTICES = 40
SIDES = ("left", "right")
KEY = "images"


# --- GIFTI ----------------------------------------------------------------------------------------


def _meta(side: str) -> GiftiMetaData:
    return GiftiMetaData({"AnatomicalStructurePrimary": f"Cortex{side.title()}"})


def _save(path: Path, arrays: list[np.ndarray], intent: str, side: str, encoding: str) -> Path:
    code = f"GIFTI_ENCODING_{encoding}"
    held = [GiftiDataArray(array, f"NIFTI_INTENT_{intent}", encoding=code) for array in arrays]
    nibabel.save(GiftiImage(meta=_meta(side), darrays=held), path)
    return path


def _series(folder: Path) -> Sequence[Path]:
    rng = np.random.default_rng(0)
    made = []
    for number, encoding in enumerate(("ASCII", "B64BIN", "B64GZ")):
        for side in SIDES:
            series = rng.normal(1000, 10, (4, VERTICES)).astype(np.float32)
            arrays = [series.T.copy()] if number == 1 else list(series)
            path = folder / f"{encoding}_{side}.func.gii"
            made.append(_save(path, arrays, "TIME_SERIES", side, encoding))
    return made


def _read_pair(path: Path) -> None:
    pair = (path.with_name(path.name.replace(a, b)) for a, b in (("right", "left"), SIDES))
    for _ in readers.gifti_pair(*pair):
        pass


@cache
def _mesh() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Flat and curved points of a small sheet, and its triangles, all turned the same way."""
    rng = np.random.default_rng(0)
    points = np.zeros((VERTICES, 3), np.float32)
    points[:, :2] = rng.uniform(-4, 4, (VERTICES, 2))
    faces = Delaunay(points[:, :2]).simplices.astype(np.int32)
    a, b, c = (points[faces[:, i]] for i in range(3))
    back = np.cross(b[:, :2] - a[:, :2], c[:, :2] - a[:, :2]) < 0
    faces[back] = faces[back][:, ::-1]
    curved = points + np.float32([4, 4, 0])
    curved[:, 2] = 4 + np.sin(points[:, 0])
    return points, curved, faces


def _write_meshes(folder: Path) -> list[Path]:
    flat, pial, faces = _mesh()
    made = []
    for name, points, encoding in (
        ("flat", flat, "ASCII"),
        ("pial", pial, "B64BIN"),
        ("white", pial * np.float32(0.9), "B64GZ"),
    ):
        for side in SIDES:
            arrays = [
                GiftiDataArray(x, f"NIFTI_INTENT_{kind}", encoding=f"GIFTI_ENCODING_{encoding}")
                for x, kind in ((points, "POINTSET"), (faces, "TRIANGLE"))
            ]
            path = folder / f"{name}_{side}.surf.gii"
            nibabel.save(GiftiImage(meta=_meta(side), darrays=arrays), path)
            made.append(path)
    np.save(folder / "mask.npy", np.ones((8, 16), np.int8))
    return made


def _settings(folder: Path, region: config.Region) -> config.Data:
    pairs = {
        kind: tuple(folder / f"{kind}_{side}.surf.gii" for side in SIDES)
        for kind in ("flat", "pial", "white")
    }
    return config.Data(
        root=folder,
        store=folder / "store.zarr",
        subjects=("01",),
        space="MNI152NLin2009cAsym",
        surfaces=config.Surfaces(**pairs),
        region=region,
    )


def _read_surface(path: Path) -> surfaces.Surfaces:
    folder = path.parent
    return surfaces.load(_settings(folder, config.Region(mask=folder / "mask.npy")))


# --- parcellations and masks ----------------------------------------------------------------------


def _labels(folder: Path) -> Sequence[Path]:
    _write_meshes(folder)
    names = {0: "???", 1: "V1", 2: "V2"}
    made = []
    for side in SIDES:
        table = GiftiLabelTable()
        for key, name in names.items():
            label = GiftiLabel(key, 1, 1, 1, 1)
            label.label = f"{side[0].upper()}_{name}_ROI" if key else name
            table.labels.append(label)
        keys = GiftiDataArray(np.ones(VERTICES, np.int32), "NIFTI_INTENT_LABEL")
        image = GiftiImage(meta=_meta(side), labeltable=table, darrays=[keys])
        nibabel.save(image, folder / f"areas_{side}.label.gii")
        made.append(folder / f"areas_{side}.label.gii")
    axis = LabelAxis(["areas"], [{key: (name, (1, 1, 1, 1)) for key, name in names.items()}])
    values = np.ones((1, len(_brain())), np.float32)
    _save_cifti(folder / "areas.dlabel.nii", values, (axis, _brain()))
    return [*made, folder / "areas.dlabel.nii"]


def _read_labels(path: Path) -> None:
    folder, one = path.parent, path.name.endswith(".dlabel.nii")
    labels = [path] if one else [folder / f"areas_{side}.label.gii" for side in SIDES]
    surfaces.load(_settings(folder, config.Region(labels=tuple(labels), areas=("V1",))))


def _masks(folder: Path) -> Sequence[Path]:
    mask = np.zeros((12, 16), np.int8)
    mask[2:9, 2:14] = -1
    mask[4:7, 4:10] = 1
    np.save(folder / "plain.npy", mask)
    np.save(folder / "floats.npy", np.asfortranarray(mask[None].astype(">f8")))
    np.savez(folder / "stored.npz", images=mask, other=mask)
    np.savez_compressed(folder / "packed.npz", images=mask[None])
    return sorted(folder.iterdir())


# --- CIFTI, NIfTI, HDF5 ---------------------------------------------------------------------------


@cache
def _brain() -> BrainModelAxis:
    left, right = (
        BrainModelAxis.from_surface(np.arange(2, VERTICES), VERTICES, f"CORTEX_{side.upper()}")
        for side in SIDES
    )
    voxels = np.ones((2, 2, 2), bool)
    return left + right + BrainModelAxis.from_mask(voxels, "BRAIN_STEM", affine=2 * np.eye(4))


def _save_cifti(path: Path, values: np.ndarray, axes: tuple) -> None:
    image = Cifti2Image(values, axes)
    image.update_headers()
    nibabel.save(image, path)


def _dense(folder: Path) -> Sequence[Path]:
    values = np.random.default_rng(0).normal(1000, 10, (5, len(_brain()))).astype(np.float32)
    time = SeriesAxis(0, 2.0, 5, "SECOND")
    _save_cifti(folder / "rows.dtseries.nii", values, (time, _brain()))
    _save_cifti(folder / "columns.dtseries.nii", values.T.copy(), (_brain(), time))
    return sorted(folder.iterdir())


def _read_dense(path: Path) -> None:
    readers.cifti_header(path)
    for _ in readers.cifti(path):
        pass


def _volumes(folder: Path) -> Sequence[Path]:
    _write_meshes(folder)
    rng = np.random.default_rng(0)
    values = rng.normal(1000, 10, (8, 8, 8, 4))
    made = []
    for name, kind, dtype in (
        ("float.nii", nibabel.Nifti1Image, np.float32),
        ("packed.nii.gz", nibabel.Nifti1Image, np.int16),
        ("second.nii", nibabel.Nifti2Image, np.float64),
    ):
        image = kind(values.astype(dtype), np.eye(4))
        image.header.set_zooms((1, 1, 1, 2))
        image.header.set_xyzt_units("mm", "sec")
        nibabel.save(image, folder / name)
        made.append(folder / name)
    return made


def _read_volume(path: Path) -> None:
    readers.volume_header(path)
    for _ in readers.volume(path, _read_sound_surfaces(path.parent)):
        pass


@cache
def _read_sound_surfaces(folder: Path) -> surfaces.Surfaces:
    return _read_surface(folder / "mask.npy")


def _data_sets(folder: Path) -> Sequence[Path]:
    values = np.random.default_rng(0).normal(1000, 10, (6, 5, 7)).astype(np.float32)
    for name, options in (
        ("plain.h5", {}),
        ("chunked.h5", {"chunks": (2, 5, 7)}),
        ("packed.h5", {"chunks": (1, 5, 7), "compression": "gzip", "fletcher32": True}),
    ):
        with h5py.File(folder / name, "w") as file:
            file.create_dataset(KEY, data=values, track_times=False, **options)
    return sorted(folder.iterdir())


def _read_data_set(path: Path) -> None:
    for _ in readers.hdf5(path, KEY):
        pass


def _meshes(folder: Path) -> Sequence[Path]:
    return _write_meshes(folder)


_GIFTI = (
    *("<DataArray", "</DataArray>", "<Data>", "</Data>", "<MetaData>", "<GIFTI", "<!ENTITY a 'b'>"),
    *('Dim0="4294967296"', 'Dim0="-1"', 'Dimensionality="9"', 'Encoding="ExternalFileBinary"'),
    *('ExternalFileName="/etc/passwd"', 'Endian="BigEndian"', 'DataType="NIFTI_TYPE_UINT8"'),
    *("NIFTI_TYPE_FLOAT64", "ColumnMajorOrder", "NIFTI_INTENT_LABEL", "ASCII", "CortexRight"),
    *("Base64Binary", "GZipBase64Binary", "Key", "nan", "1e39", "&#0;", "&lt;", "<![CDATA[", "<a>"),
)
_CIFTI = (
    *("IndexOffset", "IndexCount", "SurfaceNumberOfVertices", "NumberOfSeriesPoints", "<Matrix"),
    *("SeriesStep", "SeriesUnit", "SECOND", "HERTZ", "CIFTI_STRUCTURE_CORTEX_LEFT", "ModelType"),
    *("<VertexIndices>", "AppliesToMatrixDimension", "SeriesExponent", "<LabelTable>", "Key"),
)

PARSERS: tuple[Parser, ...] = (
    Parser("gifti", _series, _read_pair, words=_GIFTI),
    Parser("surface", _meshes, _read_surface, share=10, words=_GIFTI),
    Parser("label", _labels, _read_labels, share=5, words=(*_GIFTI, *_CIFTI)),
    Parser("cifti", _dense, _read_dense, share=10, words=_CIFTI),
    Parser("nifti", _volumes, _read_volume, share=4, words=("n+1\0", "n+2\0", "ni1\0")),
    Parser("hdf5", _data_sets, _read_data_set, words=("TREE", "HEAP", "SNOD", "FRHP", "OHDR", KEY)),
    Parser(
        "mask",
        _masks,
        regions.image,
        words=(
            "descr",
            "fortran_order",
            "shape",
            "|O",
            "<U99999999",
            "(99999999, 99999999)",
            "|V0",
        ),
    ),
)
