"""A run folder as evaluation leaves it, small and synthetic, with every part a report can show."""

import json
from pathlib import Path

import av
import numpy as np

from glfa_jax import config as config_module

NASTY = 'A <script>alert("x")</script> red ball & a "square" moves'
SCENES = ("red ball rolls to the right", "blue square sinks", "green ring grows on a dark ground")


def clip(seed: int, *, size: int, frames: int, noise: float) -> np.ndarray:
    """(f, size, size, 3) uint8: a disc that crosses a shaded ground."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size] / size
    colour, ground = rng.uniform(60, 255, 3), rng.uniform(0, 110, 3)
    start, speed = rng.uniform(0.2, 0.8, 2), rng.uniform(-0.08, 0.08, 2)
    out = np.empty((frames, size, size, 3), np.uint8)
    for t in range(frames):
        y, x = start + t * speed
        inside = ((rows - y) ** 2 + (columns - x) ** 2 < 0.03)[..., None]
        image = np.where(inside, colour, ground * (0.6 + 0.8 * rows[..., None]))
        image += rng.normal(0, noise, image.shape)
        out[t] = image.clip(0, 255)
    return out


def write_video(path: Path, video: np.ndarray, *, codec: str, pixels: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=3)
        stream.height, stream.width, stream.pix_fmt = *video.shape[1:3], pixels
        for image in video:
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            container.mux(stream.encode(frame.reformat(format=pixels)))
        container.mux(stream.encode())


def make(
    folder: Path, *, clips: int = 9, size: int = 32, frames: int = 3, map_size: int = 32
) -> Path:
    """Writes the run folder and returns it; scores, maps and losses look like real ones."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    tree = {
        "name": "fake-study",
        "run_dir": str(folder),
        "foundation": "foundation",
        "data": {"root": "data", "store": "store", "subjects": ["01", "02", "03"]},
        "protocol": {"train_subjects": ["01", "02"], "test_subjects": ["03"]},
    }
    config = config_module.Config.model_validate(tree)
    (folder / "config.yaml").write_text(config_module.dump(config))
    _metrics(folder, clips)
    _samples(folder, rng, clips=clips, size=size, frames=frames)
    _maps(folder, rng, map_size)
    _logs(folder, rng)
    return folder


def _metrics(folder: Path, clips: int) -> None:
    table = [
        ("video 2-way", "exact", 0.847, 0.11, 0.5, 2e-7),
        ("video 50-way", "exact", 0.193, 0.22, 0.02, 4e-5),
        ("video 2-way", "100 draws", 0.845, 0.12, 0.5, 2e-7),
        ("frame 2-way", "exact", 0.777, 0.13, 0.5, 3e-6),
        ("frame 50-way", "exact", 0.116, 0.16, 0.02, 0.002),
        ("ssim", "", 0.172, 0.08, 0.161, 0.21),
        ("psnr", "", 11.4, 2.3, 9.8, 0.03),
        ("CLIP-pcc", "ungated", 0.93, 0.03, None, None),
        ("EPE", "", 3.1, 1.2, 4.0, 0.04),
    ]
    rows = []
    for metric, variant, mean, std, chance, p in table:
        row = {"metric": metric, "variant": variant, "mean": mean, "std": std, "n": clips}
        row |= {"better": "lower" if metric == "EPE" else "higher"}
        row |= {"chance": chance, "p_value": p, "subject": "03", "method": "GLFA"}
        if metric != "ssim":
            half = 2.1 * std / clips**0.5
            row |= {"low": max(0.0, mean - half), "high": mean + half}
        rows.append(row)
    (folder / "metrics.json").write_text(json.dumps(rows))


def _samples(folder: Path, rng: np.random.Generator, *, clips: int, size: int, frames: int) -> None:
    index = []
    for i in range(clips):
        truth = clip(i, size=size, frames=frames, noise=2)
        decoded = clip(i if i % 3 else i + 1000, size=size, frames=frames, noise=25)
        row = {"subject": "03", "clip": i, "caption": NASTY if i == 2 else SCENES[i % 3]}
        for key, where, video in (("generated", "03", decoded), ("truth", "truth", truth)):
            stem = folder / "samples" / where / f"{i:05d}"
            write_video(stem.with_suffix(".mp4"), video, codec="libx264", pixels="yuv420p")
            write_video(stem.with_suffix(".gif"), video, codec="gif", pixels="rgb8")
            row[key] = f"{where}/{i:05d}.mp4"
            row[f"{key}_gif"] = f"{where}/{i:05d}.gif"
        row["scores"] = {
            "video 2-way": float(rng.beta(6, 1)) if i % 3 else float(rng.beta(2, 2)),
            "frame 2-way": float(rng.beta(5, 1)),
            "ssim": float(rng.uniform(0.05, 0.4)),
        }
        index.append(row)
    (folder / "samples" / "index.json").write_text(json.dumps(index))


def _maps(folder: Path, rng: np.random.Generator, map_size: int) -> None:
    rows, columns = np.mgrid[:map_size, :map_size] / map_size
    left, right = ((columns - c) ** 2 * 5 + (rows - 0.5) ** 2 for c in (0.27, 0.73))
    edge = 0.19 + 0.03 * np.sin(14 * np.arctan2(rows - 0.5, abs(columns - 0.5) - 0.23))
    mask = (left < edge) | (right < edge)
    shared = _field(rng, map_size, waves=9)
    before = [np.roll(shared, 3 * s * map_size // 64, 0) + 0.7 * _field(rng, map_size, waves=25)
              for s in range(3)]  # fmt: skip
    after = [0.6 * own + 0.5 * shared for own in before]
    alike = 0.25 + 0.1 * _field(rng, map_size, waves=9)
    true, found = displacements(rng, mask)
    np.savez(
        folder / "alignment.npz",
        mask=mask,
        subjects=np.array(["01", "02", "03"]),
        before=np.where(mask, before, 0).astype(np.float32),
        after=np.where(mask, after, 0).astype(np.float32),
        isc_before=0.21,
        isc_after=0.34,
        isc_one_kernel=0.27,
        undone=0.083,
        correlation_before=np.where(mask, alike, np.nan),
        correlation_after=np.where(mask, alike + 0.15, np.nan),
        shifts=found,
        displacements=true,
        curvature=np.where(mask, 0.1 * _field(rng, map_size, waves=60), 0),
        pixel_mm=120 / map_size,
    )


def displacements(rng: np.random.Generator, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of three subjects, (3, h, w, 2): true ones, and half of them with errors as layers find."""
    size = len(mask)

    def drawn(scale: float) -> np.ndarray:
        fields = [[_field(rng, size, waves=4) for _ in "yx"] for _ in range(3)]
        return scale * size / 32 * np.moveaxis(np.array(fields), 1, -1) * mask[..., None]

    true = drawn(1.0)
    return true, -0.5 * true + drawn(0.3)


def _field(rng: np.random.Generator, map_size: int, *, waves: float) -> np.ndarray:
    """A smooth random field of unit variance."""
    y, x = np.meshgrid(*[np.fft.fftfreq(map_size, 1 / map_size)] * 2, indexing="ij")
    noise = np.fft.fft2(rng.normal(size=(map_size, map_size)))
    field = np.fft.ifft2(noise * np.exp(-(x**2 + y**2) / (2 * waves))).real
    return field / field.std()


def _logs(folder: Path, rng: np.random.Generator) -> None:
    for stage, floor, height in (
        ("pretrain", 0.2, 3.0),
        ("contrast", 1.1, 2.6),
        ("cotrain", 0.1, 1),
    ):
        lines = []
        for step in range(10, 2001, 10):
            loss = (floor + height * np.exp(-step / 300)) * float(rng.lognormal(0, 0.12))
            entry = {"step": step, "time": step * 0.4, "loss": loss, "samples_per_second": 40.0}
            if stage == "cotrain":
                entry |= {"diffusion_loss": 0.8 * loss, "alignment_loss": 0.2 * loss}
            lines.append(json.dumps(entry))
        (folder / stage).mkdir()
        (folder / stage / "log.jsonl").write_text("\n".join(lines) + "\n")
