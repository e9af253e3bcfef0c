"""A tiny study of every layout, configured as its page or its file of configs/ says.

Files have their true names, keys and lengths; of most studies there are few, as after a partial
download. Who is trained on and who is decoded is as configured, two of the former and one of the
latter.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.data import tiny_studies as studies
from tests.data.public_studies import Cortex, bold_events, bold_scan, hcp_scan

ROOT = Path(__file__).parents[2]
CLIPS = 4  # that are decoded

Tree = dict[str, Any]


@dataclass(frozen=True)
class Decoded:
    """One run, as `decode` takes it; paths count from the study's root.

    shown: options of the command without their dashes. clips: names of what is decoded, each with
    the clip of the store that it is. exact: whether maps are the store's, bit for bit; else the
    layout z-scores other volumes than the whole run's.
    """

    scans: tuple[Path, ...]
    shown: Mapping[str, str]
    clips: Mapping[str, str]
    exact: bool = False


@dataclass(frozen=True)
class Case:
    """A study of a layout.

    configured: what its user configures, as YAML gives it. write: makes its files. captions:
    those of the first test clips, by the clips' names. run: one to be decoded alone.
    """

    layout: str
    configured: Callable[[], Tree]
    write: studies.Write
    captions: Mapping[str, str]
    run: Decoded | None = None

    def settings(self, place: Path, cortex: Cortex, sizes: Tree) -> Tree:
        """Of a study that is written to a place, with the sizes of stages and videos."""
        tree = self.configured()
        protocol = tree["protocol"]
        train, test = tuple(protocol["train_subjects"][:2]), tuple(protocol["test_subjects"][:1])
        data = {**tree["data"], **sizes["data"], **self.write(place / "study", (*train, *test))}
        data |= {"store": str(place / "store.zarr"), "subjects": [*train, *test], "workers": 1}
        data.pop("simulation", None)
        data.pop("latents", None)
        if data.get("surfaces"):
            data |= {"surfaces": cortex.surfaces, "region": cortex.region}
        return {
            **sizes,
            "name": tree["name"],
            "run_dir": str(place / "run"),
            "data": data,
            "protocol": {**protocol, "train_subjects": [*train], "test_subjects": [*test]},
        }


def shipped(name: str, **changes: Any) -> Callable[[], Tree]:
    """A file of configs/, with other options of `data`."""

    def read() -> Tree:
        tree = yaml.safe_load((ROOT / "configs" / f"{name}.yaml").read_text())
        return tree | {"data": tree["data"] | changes}

    return read


def of_page(name: str) -> Tree:
    """The first configuration on a page of docs/."""
    text = (ROOT / "docs" / f"{name}.md").read_text()
    return yaml.safe_load(re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)[0])


def cinebrain() -> Tree:
    """That of the BOLD Moments, with the changes that its page names."""
    tree, changes = shipped("bold_moments")(), of_page("studies/cinebrain")
    return tree | changes | {"data": tree["data"] | changes["data"]}


def numbered(form: str, text: str, numbers: Iterable[int]) -> dict[str, str]:
    return {form.format(number): text.format(number) for number in numbers}


def wen_run(scan: str) -> Decoded:
    """The film begins with the second volume."""
    return Decoded(
        (Path("video_fmri_dataset/subject3/fmri/test1", scan),),
        {"films": "stimuli/test1.mp4,onset=2,duration=6"},
        numbered("test1.mp4/{:03d}", "test1/{:03d}", range(3)),
    )


_WEN = numbered("test1/{:03d}", "clip {} of test1", range(CLIPS))
_BOLD = numbered("test/{}.mp4", "Clip {} is described in sentence 1", range(1001, 1001 + CLIPS))
_BOLD_RUN = Decoded(
    (bold_scan(Path(), "05", "test", "02", 1),),
    {
        "events": str(bold_events(Path(), "05", "test", "02", 1)),
        "stimuli": "derivatives/stimuli_metadata/stimuli",
    },
    {clip: clip for clip in _BOLD},
    exact=True,
)
_HCP_RUN = Decoded(
    (hcp_scan(Path(), "105923", "MOVIE1"),),
    {"films": "stimuli/7T_MOVIE1_CC1_v2.mp4,start=20,onset=20,duration=60"},
    {f"7T_MOVIE1_CC1_v2.mp4/{at // 20:03d}": f"MOVIE1/{at:03d}" for at in (20, 40, 60)},
)
_FILMS_RUN = Decoded(
    tuple(
        Path(
            "derivatives/fmriprep",
            f"{studies.film_stem('03')}_hemi-{side}_space-fsaverage5_bold.func.gii",
        )
        for side in "LR"
    ),
    {"films": "stimuli/wolf.mp4,start=160,onset=164,duration=12"},
    {name: name for name in ("wolf.mp4/040", "wolf.mp4/041", "wolf.mp4/042")},
)
CASES = {
    "wen2018": Case(
        "wen2018",
        shipped("wen2018"),
        studies.wen("fsLR"),
        _WEN,
        wen_run("cifti/test1_1_Atlas.dtseries.nii"),
    ),
    "wen2018, volumes": Case(
        "wen2018",
        shipped("wen2018", space="MNI152NLin6Asym"),
        studies.wen("MNI152NLin6Asym"),
        _WEN,
        wen_run("mni/test1_1_mni.nii.gz"),
    ),
    "bold_moments": Case(
        "bold_moments", shipped("bold_moments"), studies.bold_moments, _BOLD, _BOLD_RUN
    ),
    "hcp7t": Case(
        "hcp7t",
        shipped("hcp7t"),
        studies.hcp7t,
        {f"validation/{at:03d}": f"second {at} of the last clip" for at in (0, 20, 40, 60)},
        _HCP_RUN,
    ),
    "fudan": Case(
        "fudan",
        shipped("fudan_webvid"),
        studies.fudan,
        {f"{video}_{half}s": f"caption of {video}" for video in (1000, 1001) for half in (0, 4)},
    ),
    "bids": Case(
        "bids", cinebrain, studies.cinebrain, numbered("{:06d}.mp4", "clip {}", range(5130, 5134))
    ),
    "bids, films": Case(
        "bids",
        lambda: of_page("films"),
        studies.films,
        {f"wolf.mp4/{at // 4:03d}": f"from {at // 20 * 20} s on" for at in (160, 164, 168, 172)},
        _FILMS_RUN,
    ),
}
