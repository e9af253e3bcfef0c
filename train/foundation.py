"""Trains the foundation models of the simulated world on its procedural clips.

    python -m train.foundation --config configs/foundation.yaml

CLIP, VAE, both classifiers and the text-to-video model, in the architectures of the real ones and
small; stored as diffusers and transformers store theirs. Prints how well each works on clips it has
not seen.
"""

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from glfa_jax import config
from glfa_jax.cli import run_main
from glfa_jax.convert import pretrained
from glfa_jax.data.captions import Tokenizer
from glfa_jax.diffusion.guidance import guided
from glfa_jax.diffusion.sampler import sample
from glfa_jax.diffusion.schedule import MODELSCOPE, Schedule, noise_like
from glfa_jax.files import write_atomically
from glfa_jax.simulate import stimuli
from glfa_jax.simulate.tokenizer import write_tokenizer
from glfa_jax.training.loop import train, use_compilation_cache, validate_unchanged
from glfa_jax.training.optim import OTHERWISE, Group
from glfa_jax.training.processes import alone_in

_ALL = (Group(OTHERWISE, 1.0),)
_STORED = np.float16
_SNR_GAMMA = 5.0  # weights of the generator's loss, as arXiv 2303.09556 recommends
_WORD_SCALE = 50.0  # of the initial word embeddings: their standard deviation 0.02 becomes 1
_WIDTH = 64  # of the caption tokens, and so of the generator's condition
# Draws that no training stream uses.
_HELD_OUT_SEED = 2**31 - 1

_ENCODER = {"num_attention_heads": 4, "num_hidden_layers": 3, "layer_norm_eps": 1e-5}


def to_signed(video: np.ndarray) -> np.ndarray:
    """uint8 to float32 in [-1, 1]."""
    return video.astype(np.float32) / 127.5 - 1


def draw(rng: np.random.Generator, clips: int) -> list[stimuli.Scene]:
    """Random scenes."""
    return [stimuli.sample_scene(rng) for _ in range(clips)]


class Stream:
    """Endless batches, each a pure function of seed and position."""

    def __init__(self, seed: int, make: Callable[[np.random.Generator], Any]):
        self._seed, self._make, self._next = seed, make, 0

    def __iter__(self) -> "Stream":
        return self

    def __next__(self) -> Any:
        rng = np.random.default_rng([self._seed, self._next])
        self._next += 1
        return self._make(rng)

    def get_state(self) -> dict[str, int]:
        return {"next": self._next}

    def set_state(self, state: dict[str, int]) -> None:
        self._next = state["next"]


class Foundation:
    """One run: trains what is missing, in order, and stores each model when it is done."""

    def __init__(self, settings: config.Foundation):
        self.settings = settings
        self.out = settings.out
        self.folder = settings.out / "text-to-video"

    def run(self) -> None:
        self._tokenizer()
        self._vae()
        self._clip()
        self._image_classifier()
        self._video_classifier()
        self._generator()

    def _held_out(self, clips: int) -> list[stimuli.Scene]:
        return draw(np.random.default_rng(_HELD_OUT_SEED), clips)

    def _videos(self, scenes: list[stimuli.Scene]) -> np.ndarray:
        """(b, f, h, w, 3) in [-1, 1]."""
        size, frames = self.settings.size, self.settings.frames
        return to_signed(
            np.stack([stimuli.render(scene, frames=frames, size=size) for scene in scenes])
        )

    def _images(self, scenes: list[stimuli.Scene], rng: np.random.Generator) -> np.ndarray:
        """One random frame of each clip, (b, h, w, 3) in [-1, 1]."""
        size, frames = self.settings.size, self.settings.frames
        picks = rng.integers(frames, size=len(scenes))
        images = [
            stimuli.render(scene, frames=frames, size=size, only=[pick])[0]
            for scene, pick in zip(scenes, picks, strict=True)
        ]
        return to_signed(np.stack(images))

    def _train(
        self,
        name: str,
        kind: str,
        module: Any,
        loss_fn: Callable,
        make: Callable,
        *,
        frozen: Any = (),
        init: dict | None = None,
        adjust: Callable[[dict], dict] = lambda params: params,
    ) -> dict:
        """Trains a module's parameters from `init`, or from random ones after `adjust`."""
        inputs, keywords = pretrained.KINDS[kind].example(module)
        state = train(
            name=name,
            folder=self.settings.run_dir / name,
            stage=getattr(self.settings, name),
            seed=self.settings.seed,
            init=init or (lambda key: adjust(module.init(key, *inputs, **keywords)["params"])),
            frozen=frozen,
            loss_fn=loss_fn,
            groups=_ALL,
            batches=Stream(self.settings.seed, make),
            fingerprint={},
            hardware=self.settings.hardware,
        )
        return jax.device_get(state.params)

    def _save(self, kind: str, folder: Path, params: dict, settings: dict) -> Any:
        """Stores in half precision and gives back what was stored, so that it is what is tested."""
        pretrained.save(kind, folder, params, config=settings, dtype=_STORED)
        return pretrained.load(kind, folder)

    def _tokenizer(self) -> None:
        rng = np.random.default_rng(self.settings.seed)
        texts = [stimuli.caption(stimuli.sample_scene(rng), rng) for _ in range(20_000)]
        for folder in (self.folder / "tokenizer", self.out / "clip"):
            write_tokenizer(texts, folder, max_length=self.settings.caption_tokens)
        self.tokenize = Tokenizer.load(self.folder / "tokenizer")

    def _vae(self) -> None:
        architecture = {
            "_class_name": "AutoencoderKL",
            "in_channels": 3,
            "out_channels": 3,
            "latent_channels": 4,
            "block_out_channels": [16, 32, 64, 64],
            "down_block_types": ["DownEncoderBlock2D"] * 4,
            "up_block_types": ["UpDecoderBlock2D"] * 4,
            "layers_per_block": 1,
            "norm_num_groups": 8,
            "act_fn": "silu",
            "sample_size": self.settings.size,
            "scaling_factor": 1.0,
        }
        module = pretrained.build("vae", architecture)

        def loss_fn(params, frozen, batch, key):
            variables = {"params": params}
            posterior: Any = module.apply(variables, batch, method="encode")
            image: Any = module.apply(variables, posterior.sample(key), method="decode")
            error = image - batch
            reconstruction = jnp.abs(error).mean() + jnp.square(error).mean()
            divergence = posterior.divergence().mean() / posterior.mean[0].size
            return reconstruction + 1e-4 * divergence, {
                "squared_error": jnp.square(error).mean(),
                "divergence": divergence,
            }

        def make(rng):
            return self._images(draw(rng, self.settings.vae.batch_size), rng)

        params = self._train("vae", "vae", module, loss_fn, make)
        images = self._images(self._held_out(64), np.random.default_rng(0))
        encoded: Any = module.apply({"params": params}, images, method="encode")
        architecture["scaling_factor"] = round(float(1 / encoded.mean.std()), 5)
        self.vae = self._save("vae", self.folder / "vae", params, architecture)
        rebuilt = jax.jit(self.vae.module.apply)(self.vae.variables, images)
        error = float(jnp.square((jnp.clip(rebuilt, -1, 1) - images) / 2).mean())
        self._report("vae", psnr=-10 * np.log10(error))

    def _clip(self) -> None:
        shared = {**_ENCODER, "hidden_act": "gelu"}
        vocabulary = json.loads((self.folder / "tokenizer" / "vocab.json").read_text())
        text = {
            **shared,
            "model_type": "clip_text_model",
            "vocab_size": len(vocabulary),
            "max_position_embeddings": self.settings.caption_tokens,
            "hidden_size": _WIDTH,
            "intermediate_size": 4 * _WIDTH,
            "num_hidden_layers": 2,
            "bos_token_id": vocabulary["<|startoftext|>"],
            "eos_token_id": vocabulary["<|endoftext|>"],
            "pad_token_id": vocabulary["<|endoftext|>"],
        }
        vision = {
            **shared,
            "model_type": "clip_vision_model",
            "image_size": self.settings.size,
            "patch_size": 8,
            "hidden_size": 96,
            "intermediate_size": 384,
        }
        architecture = {
            "model_type": "clip",
            "architectures": ["CLIPModel"],
            "projection_dim": _WIDTH,
            "text_config": text,
            "vision_config": vision,
        }
        module = pretrained.build("clip", architecture)

        def loss_fn(params, frozen, batch, key):
            out: Any = module.apply({"params": params}, batch["image"], tokens=batch["tokens"])
            logits = jnp.exp(out.logit_scale) * out.image @ out.text.T
            labels = jnp.arange(len(logits))
            rows = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
            columns = optax.softmax_cross_entropy_with_integer_labels(logits.T, labels).mean()
            accuracy = (logits.argmax(1) == labels).mean()
            return (rows + columns) / 2, {"accuracy": accuracy}

        def make(rng):
            scenes = draw(rng, self.settings.clip.batch_size)
            captions = [stimuli.caption(scene, rng) for scene in scenes]
            return {"image": self._images(scenes, rng), "tokens": self.tokenize(captions)}

        def spread_words(params):
            # Single frames hardly tell left from right, so CLIP will not learn to; but the
            # generator must hear the difference. Words that begin wide apart stay apart.
            words = params["text_model"]["embeddings.token_embedding"]
            words["embedding"] *= _WORD_SCALE
            return params

        params = self._train("clip", "clip", module, loss_fn, make, adjust=spread_words)
        self.clip = self._save("clip", self.out / "clip", params, architecture)
        self._write_preprocessor(self.out / "clip", "CLIPImageProcessor")
        # Where the generator's own text encoder begins; stored once the generator has trained it.
        self.text_architecture = {**text, "architectures": ["CLIPTextModel"]}
        self.text = pretrained.Pretrained(
            pretrained.build("clip_text", self.text_architecture),
            {"params": self.clip.variables["params"]["text_model"]},
        )
        scenes = self._held_out(64)
        batch = {
            "image": self._images(scenes, np.random.default_rng(0)),
            "tokens": self.tokenize([stimuli.caption(scene) for scene in scenes]),
        }
        _, metrics = loss_fn(self.clip.variables["params"], (), batch, None)
        self._report("clip", retrieval_of_64=float(metrics["accuracy"]))

    def _write_preprocessor(self, folder: Path, kind: str) -> None:
        side = {"height": self.settings.size, "width": self.settings.size}
        content = {
            "image_processor_type": kind,
            "do_resize": True,
            "size": side,
            "resample": 2,
            "do_center_crop": False,
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
        }
        text = json.dumps(content, indent=2, sort_keys=True) + "\n"
        (folder / "preprocessor_config.json").write_text(text)

    def _classifier(
        self, name: str, kind: str, settings: dict, classes: tuple[str, ...], make: Callable
    ) -> pretrained.Pretrained:
        architecture = {
            **_ENCODER,
            **settings,
            "hidden_act": "gelu",
            "hidden_size": 96,
            "intermediate_size": 384,
            "num_channels": 3,
            "image_size": self.settings.size,
            "qkv_bias": True,
            "id2label": {str(i): label for i, label in enumerate(classes)},
            "label2id": {label: i for i, label in enumerate(classes)},
        }
        module = pretrained.build(kind, architecture)

        def loss_fn(params, frozen, batch, key):
            # Samples of a generator are a little blurred and noisy; the judge should not mind.
            level_key, noise_key = jax.random.split(key)
            shape = (len(batch["label"]),) + (1,) * (batch["input"].ndim - 1)
            level = 0.2 * jax.random.uniform(level_key, shape)
            noisy = batch["input"] + level * jax.random.normal(noise_key, batch["input"].shape)
            logits: Any = module.apply({"params": params}, noisy)
            loss = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]).mean()
            return loss, {"accuracy": (logits.argmax(-1) == batch["label"]).mean()}

        params = self._train(name, kind, module, loss_fn, make)
        folder = self.out / name.replace("_", "-")
        model = self._save(kind, folder, params, architecture)
        processor = {"vit": "ViTImageProcessor", "video_mae": "VideoMAEImageProcessor"}[kind]
        self._write_preprocessor(folder, processor)
        held_out = make(np.random.default_rng(_HELD_OUT_SEED), 256)
        logits = jax.jit(model.module.apply)(model.variables, held_out["input"])
        accuracy = float((logits.argmax(-1) == held_out["label"]).mean())
        self._report(name, accuracy_of_64=accuracy)
        return model

    def _image_classifier(self) -> None:
        def make(rng, clips=self.settings.image_classifier.batch_size):
            scenes = draw(rng, clips)
            label = _labels(stimuli.frame_label, scenes)
            return {"input": self._images(scenes, rng), "label": label}

        settings = {
            "model_type": "vit",
            "architectures": ["ViTForImageClassification"],
            "patch_size": 8,
        }
        self.image_classifier = self._classifier(
            "image_classifier", "vit", settings, stimuli.FRAME_CLASSES, make
        )

    def _video_classifier(self) -> None:
        def make(rng, clips=self.settings.video_classifier.batch_size):
            scenes = draw(rng, clips)
            label = _labels(stimuli.video_label, scenes)
            return {"input": self._videos(scenes), "label": label}

        settings = {
            "model_type": "videomae",
            "architectures": ["VideoMAEForVideoClassification"],
            "patch_size": 8,
            "num_frames": self.settings.frames,
            "tubelet_size": 3,
            "use_mean_pooling": True,
        }
        self.video_classifier = self._classifier(
            "video_classifier", "video_mae", settings, stimuli.VIDEO_CLASSES, make
        )

    def _generator(self) -> None:
        architecture = {
            "_class_name": "UNet3DConditionModel",
            "in_channels": 4,
            "out_channels": 4,
            "sample_size": self.settings.size // 8,
            "block_out_channels": [32, 64],
            "down_block_types": ["DownBlock3D", "CrossAttnDownBlock3D"],
            "up_block_types": ["CrossAttnUpBlock3D", "UpBlock3D"],
            "layers_per_block": 1,
            "norm_num_groups": 8,
            "cross_attention_dim": _WIDTH,
            "attention_head_dim": 8,
        }
        module = pretrained.build("unet3d", architecture)
        schedule = MODELSCOPE
        means, deviations, captions = self._latents()

        def make(rng, stage, frames):
            """`frames` of a clip: all in order, or one at random."""
            picks = rng.integers(len(means), size=stage.batch_size)
            drop = rng.random(stage.batch_size) < self.settings.unconditional
            texts = [
                "" if dropped else captions[i][rng.integers(len(captions[i]))]
                for i, dropped in zip(picks, drop, strict=True)
            ]
            first = 0 if frames == self.settings.frames else rng.integers(self.settings.frames)
            window = np.s_[picks, first : first + frames]
            noise = rng.standard_normal(means[window].shape, np.float32)
            latents = means[window] + deviations[window] * noise
            return {"latents": latents, "tokens": self.tokenize(texts)}

        text = self.text.module

        def denoising_loss(unet_params, text_variables, batch, key, over_time):
            noise_key, time_key = jax.random.split(key)
            latents = self.vae.module.to_diffusion(batch["latents"])
            # What moves where is decided while there is still much noise: clips see more of it.
            part = jax.random.uniform(time_key, (len(latents),))
            part = jnp.sqrt(part) if over_time else part
            t = jnp.floor(schedule.num_train_timesteps * part).astype(jnp.int32)
            noise = noise_like(noise_key, latents, offset_strength=0.0)
            encoded: Any = text.apply(text_variables, batch["tokens"])
            noisy = schedule.add_noise(latents, noise=noise, t=t)
            prediction: Any = module.apply(
                {"params": unet_params}, noisy, t, encoded.hidden, over_time=over_time
            )
            target = schedule.target(latents, noise=noise, t=t)
            error = jnp.square(prediction - target).mean((1, 2, 3, 4))
            weight = schedule.min_snr_weight(t, gamma=_SNR_GAMMA)
            if over_time:
                # Under much noise an error of the noise is a large one of the clip: count both.
                weight = weight + 1 / schedule.signal_to_noise(t)
            return (weight * error).mean(), {}

        def images_loss(params, frozen, batch, key):
            return denoising_loss(params, frozen, batch, key, over_time=False)

        def clips_loss(params, frozen, batch, key):
            return denoising_loss(
                params["unet"], {"params": params["text"]}, batch, key, over_time=True
            )

        # Pictures first, as ModelScope began from a text-to-image model: a picture costs a tenth
        # of a clip and teaches all but motion.
        unet_params = self._train(
            "generator_images",
            "unet3d",
            module,
            images_loss,
            partial(make, stage=self.settings.generator_images, frames=1),
            frozen=self.text.variables,
        )
        # CLIP learns from single frames and so hardly tells left from right: with the clips the
        # generator's own text encoder learns on.
        params = self._train(
            "generator",
            "unet3d",
            module,
            clips_loss,
            partial(make, stage=self.settings.generator, frames=self.settings.frames),
            init={"unet": unet_params, "text": self.text.variables["params"]},
        )
        self.text = self._save(
            "clip_text", self.folder / "text_encoder", params["text"], self.text_architecture
        )
        self.unet = self._save("unet3d", self.folder / "unet", params["unet"], architecture)
        (self.folder / "scheduler").mkdir(exist_ok=True)
        _write_json(self.folder / "scheduler" / "scheduler_config.json", schedule.to_config())
        _write_json(
            self.folder / "model_index.json",
            {
                "_class_name": "TextToVideoSDPipeline",
                "scheduler": ["diffusers", "DDIMScheduler"],
                "text_encoder": ["transformers", "CLIPTextModel"],
                "tokenizer": ["transformers", "CLIPTokenizer"],
                "unet": ["diffusers", "UNet3DConditionModel"],
                "vae": ["diffusers", "AutoencoderKL"],
            },
        )
        self._judge(schedule)

    def _latents(self) -> tuple[np.ndarray, np.ndarray, list[list[str]]]:
        """Posterior means and deviations of many clips, and four captions of each; encoded once."""
        rng = np.random.default_rng(self.settings.seed)
        scenes = draw(rng, self.settings.clips)
        captions = [[stimuli.caption(scene, rng) for _ in range(4)] for scene in scenes]
        cache = self.settings.run_dir / "latents.npz"
        if cache.exists():
            with np.load(cache) as arrays:
                return arrays["mean"], arrays["deviation"], captions
        encode = jax.jit(lambda x: self.vae.module.apply(self.vae.variables, x, method="encode"))
        parts = []
        for start in range(0, len(scenes), 64):
            posterior = jax.device_get(encode(self._videos(scenes[start : start + 64])))
            parts.append((posterior.mean, np.exp(0.5 * posterior.log_variance)))
        means, deviations = (np.concatenate(part) for part in zip(*parts, strict=True))
        aside = cache.with_suffix(".partial.npz")
        np.savez(aside, mean=means, deviation=deviations)
        aside.rename(cache)
        return means, deviations, captions

    def _judge(self, schedule: Schedule) -> None:
        """From captions alone: do the classifiers see in the samples what the captions say?"""
        clips = 64
        scenes = self._held_out(clips)
        captions = [stimuli.caption(scene) for scene in scenes]
        tokens = self.tokenize(captions)
        side = self.settings.size // 8

        @jax.jit
        def generate(key, scale):
            encode = self.text.module.apply
            condition = encode(self.text.variables, tokens).hidden
            negative = encode(self.text.variables, self.tokenize([""])).hidden
            unet = self.unet
            denoise = guided(
                lambda x, t, c: unet.module.apply(unet.variables, x, t, c),
                condition=condition,
                negative=negative,
                scale=scale,
            )
            noise = jax.random.normal(key, (clips, self.settings.frames, side, side, 4))
            latents = sample(denoise, noise, schedule=schedule, steps=25, method="dpm++")
            return self.vae.module.apply(
                self.vae.variables, self.vae.module.from_diffusion(latents), method="decode"
            )

        video = jnp.clip(generate(jax.random.key(self.settings.seed), 5.0), -1, 1)
        video_model, image_model = self.video_classifier, self.image_classifier
        seen = np.asarray(jax.jit(video_model.module.apply)(video_model.variables, video)).argmax(
            -1
        )
        frame = np.asarray(
            jax.jit(image_model.module.apply)(image_model.variables, video[:, 2])
        ).argmax(-1)
        wanted = _labels(stimuli.video_label, scenes)
        colour = _labels(stimuli.frame_label, scenes)
        self._report(
            "generator",
            category=float((seen // 8 == wanted // 8).mean()),
            motion=float((seen % 8 == wanted % 8).mean()),
            colour=float((frame % 8 == colour % 8).mean()),
            chance=1 / 8,
            clips=clips,
        )
        np.savez_compressed(
            self.settings.run_dir / "samples.npz",
            video=np.round((np.asarray(video) + 1) * 127.5).astype(np.uint8),
            captions=captions,
        )

    def _report(self, name: str, **numbers: float) -> None:
        """Prints the numbers and keeps them beside the models."""
        path = self.out / "results.json"
        results = json.loads(path.read_text()) if path.exists() else {}
        results[name] = {key: round(value, 4) for key, value in numbers.items()}
        _write_json(path, results)
        print(f"{name}: " + ", ".join(f"{key} {value:.3f}" for key, value in numbers.items()))


def _labels(label: Callable[[stimuli.Scene], int], scenes: list[stimuli.Scene]) -> np.ndarray:
    return np.array([label(scene) for scene in scenes], np.int32)


def _write_json(path: Path, content: dict) -> None:
    write_atomically(path, json.dumps(content, indent=2, sort_keys=True) + "\n")


def main(settings: config.Foundation) -> None:
    use_compilation_cache()
    with alone_in(settings.run_dir):
        validate_unchanged(settings.run_dir, settings)
        Foundation(settings).run()


if __name__ == "__main__":
    sys.exit(
        run_main(main, command="train.foundation", schema=config.Foundation, description=__doc__)
    )
