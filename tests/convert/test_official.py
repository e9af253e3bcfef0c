"""Official checkpoints: the architecture from shapes, and exact inverses in all variants."""

import json
from functools import cache
from pathlib import Path

import jax
import numpy as np
import pytest

from glfa_jax.convert import official, pretrained
from glfa_jax.convert.directory import read_file, read_tensors
from glfa_jax.convert.mapping import export_params, places
from glfa_jax.convert.pickled import read_pickled, write_pickled
from glfa_jax.convert.transfer import export_model, import_model
from glfa_jax.models.fmri_autoencoder import FmriAutoencoder
from tests.convert import test_pretrained as tiny
from tests.convert.test_pretrained import CONFIGS, assert_same, contents, kind_of, rejection

REFERENCE = Path(__file__).parents[1] / "reference" / "official_checkpoint_keys.json"
HEADS = {"num_heads": 2}
ALL_HEADS = {"num_heads": 2, "conditioning_heads": 2}
_HEAD = ("channel_mapper.0.weight", "channel_mapper.2.weight", "channel_mapper.4.weight")
_HEAD += ("dim_mapper.weight", "dim_mapper.bias")
HEADLESS = {f"fmri2clip.{name}": None for name in _HEAD}


@cache
def published() -> dict:
    return json.loads(REFERENCE.read_text())


def hollow(shapes: dict) -> dict[str, np.ndarray]:
    """Tensors of full size that take no memory."""
    return {n: np.broadcast_to(np.zeros((), np.float32), s) for n, s in shapes.items()}


def full_size(which: str) -> tuple[str, dict[str, np.ndarray]]:
    content = published()
    if which == "autoencoder":
        return "fmri_autoencoder", hollow(content["pretrained_autoencoder"])
    tensors = dict(content["encoder_stage1_head_fmri2clip"])
    if which == "linear head":
        tensors = {n: s for n, s in tensors.items() if not n.startswith("fmri2clip.")}
        tensors |= content["encoder_stage1_head_linear_replaces_fmri2clip_with"]
    if which == "without alignment":
        tensors = {n: s for n, s in tensors.items() if not n.startswith("func_align_layer.")}
    if which == "without decoder":
        inner = "fmri_encoder.transformer."
        gone = ("mask_token", "decoder_", "pred.")
        tensors = {n: s for n, s in tensors.items() if not n.removeprefix(inner).startswith(gone)}
    return "fmri_encoder", hollow(tensors)


@pytest.mark.parametrize(
    ("which", "expected"),
    [
        ("autoencoder", {"decoder_depth": 24, "latent": 2048}),
        ("encoder", {"head": "conv", "kernel_size": 13, "global_part": True, "local_part": True}),
        ("linear head", {"head": "linear", "window": 5, "clip_dim": 1024}),
        ("without alignment", {"global_part": False, "local_part": False}),
        ("without decoder", {"tokens": 77, "hidden_tokens": 321, "conditioning_heads": 16}),
    ],
)
def test_published_checkpoints_tell_their_architecture(which, expected):
    kind, tensors = full_size(which)
    assert official.kind_of(tensors) == kind
    tensors = official.from_official(kind, tensors)
    config = official.architecture(kind, tensors, given={}, place="a.pth")
    shared = {"height": 256, "width": 256, "patch_size": 16, "dim": 1024, "depth": 24}
    for key, value in (shared | {"num_heads": 16, "mlp_ratio": 4.0} | expected).items():
        assert config[key] == value, key
    _, shapes = pretrained.described(kind, config, place="a.pth")
    table = pretrained.KINDS[kind].table(tensors)
    found = {place.name for place in places(tensors, shapes, table)}
    decoder = official.decoder_names(kind, tensors) if kind == "fmri_encoder" else []
    assert found == tensors.keys() - set(decoder)
    assert len(decoder) in ((0,) if which in ("autoencoder", "without decoder") else (298,))


@cache
def checkpoint(name: str) -> dict[str, np.ndarray]:
    """A small checkpoint as the official code stores it, an encoder's with the decoder."""
    kind = kind_of(name)
    own = export_params(tiny.params_of(name), pretrained.KINDS[kind].written)
    if kind == "fmri_autoencoder":
        return {f"transformer.{n}": tensor for n, tensor in own.items()}
    config = CONFIGS[name]
    fields = ("height", "width", "patch_size", "dim", "depth", "num_heads")
    whole = FmriAutoencoder(**{f: config[f] for f in fields}, decoder_depth=1, latent=6)
    shapes = pretrained.parameter_shapes("fmri_autoencoder", whole)
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda x: rng.standard_normal(x.shape).astype(np.float32), shapes)
    decoder = export_params(params, pretrained.KINDS["fmri_autoencoder"].written)
    return official.to_official(kind, own) | official.decoder_of(decoder)


def write(path: Path, tensors: dict[str, np.ndarray]) -> Path:
    write_pickled(path, tensors, key="model")
    return path


def given_for(kind: str) -> dict:
    return ALL_HEADS if kind == "fmri_encoder" else {"num_heads": 2, "height": 16, "width": 24}


def stored(tensors: dict[str, np.ndarray]) -> dict[str, tuple]:
    return {n: (str(t.dtype), t.shape, t.tobytes()) for n, t in tensors.items()}


OWN = ["fmri_autoencoder", "fmri_encoder", "fmri_encoder, linear head"]


@pytest.mark.parametrize("module_prefix", [False, True])
@pytest.mark.parametrize("name", OWN)
def test_import_then_export_gives_the_checkpoint(name, module_prefix, tmp_path):
    kind, tensors = kind_of(name), checkpoint(name)
    named = {f"module.{n}" if module_prefix else n: t for n, t in tensors.items()}
    source = write(tmp_path / "theirs.pth", named)
    import_model(kind, source, tmp_path / "ours", given=given_for(kind))
    loaded = pretrained.load(kind, tmp_path / "ours")
    assert_same(loaded.variables["params"], tiny.params_of(name))
    assert loaded.module == pretrained.build(kind, CONFIGS[name])
    again = tmp_path / "again.pth"
    export_model(kind, tmp_path / "ours", again, module_prefix=module_prefix)
    assert list(read_pickled(again)) == ["model"]
    assert stored(read_pickled(again)["model"]) == stored(named)


@pytest.mark.parametrize("name", OWN)
def test_export_then_import_gives_the_folder(name, tmp_path):
    kind = kind_of(name)
    tiny.write(name, tmp_path / "ours")
    export_model(kind, tmp_path / "ours", tmp_path / "theirs.pth")
    import_model(kind, tmp_path / "theirs.pth", tmp_path / "again", given=given_for(kind))
    for file in ("config.json", "model.safetensors"):
        again, ours = ((tmp_path / name / file).read_bytes() for name in ("again", "ours"))
        assert again == ours, file


def test_the_decoder_is_dropped_on_demand(tmp_path):
    source = write(tmp_path / "a.pth", checkpoint("fmri_encoder"))
    options = {"given": ALL_HEADS, "drop_decoder": True}
    import_model("fmri_encoder", source, tmp_path / "encoder", **options)
    assert not official.decoder_names("fmri_encoder", read_tensors(tmp_path / "encoder"))
    source = write(tmp_path / "b.pth", checkpoint("fmri_autoencoder"))
    options["given"] = given_for("fmri_autoencoder")
    import_model("fmri_autoencoder", source, tmp_path / "half", **options)
    half = pretrained.load("fmri_autoencoder", tmp_path / "half")
    assert not half.module.decoder
    whole = tiny.params_of("fmri_autoencoder")
    assert_same(half.variables["params"], {n: whole[n] for n in half.variables["params"]})
    assert half.variables["params"].keys() < whole.keys()


def test_an_encoder_holds_a_whole_autoencoder(tmp_path):
    source = write(tmp_path / "a.pth", checkpoint("fmri_encoder"))
    import_model("fmri_autoencoder", source, tmp_path / "ours", given=given_for("fmri_autoencoder"))
    loaded = pretrained.load("fmri_autoencoder", tmp_path / "ours")
    assert (loaded.module.decoder_depth, loaded.module.latent) == (1, 6)


def test_an_encoder_of_ours_gets_a_decoder_for_the_official_layout(tmp_path):
    name = "fmri_encoder"
    tiny.write(name, tmp_path / "encoder")
    source = write(tmp_path / "a.pth", checkpoint(name))
    given = given_for("fmri_autoencoder")
    import_model("fmri_autoencoder", source, tmp_path / "autoencoder", given=given)
    export_model(name, tmp_path / "encoder", tmp_path / "b.pth", decoder=tmp_path / "autoencoder")
    assert stored(read_file(tmp_path / "b.pth")) == stored(checkpoint(name))


def test_what_shapes_cannot_tell_is_asked_for(tmp_path):
    source = write(tmp_path / "a.pth", checkpoint("fmri_encoder"))
    message = rejection(
        lambda: import_model("fmri_encoder", source, tmp_path / "ours"),
        f"{source}: the tensors do not tell the number of attention heads",
        "--set num_heads=N --set conditioning_heads=N",
    )
    assert len(message.splitlines()) == 1
    flat = write(tmp_path / "b.pth", checkpoint("fmri_autoencoder"))
    rejection(
        lambda: import_model("fmri_autoencoder", flat, tmp_path / "ours", given={"num_heads": 2}),
        f"{flat}: the patches make no square",
        "--set height=N --set width=N",
    )
    wrong = {**ALL_HEADS, "heads": 3}
    rejection(
        lambda: import_model("fmri_encoder", source, tmp_path / "ours", given=wrong),
        "unknown keys ['heads']",
    )
    assert contents(tmp_path).keys() == {str(source), str(flat)}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"fmri_encoder.transformer.norm.bias": None}, "missing: fmri_encoder.transformer.norm"),
        ({"extra": (3,)}, "unused: extra"),
        ({"fmri2clip.dim_mapper.bias": (1,)}, "shape: fmri2clip.dim_mapper.bias is (1,), expected"),
        (
            {"fmri_encoder.transformer.pred.bias": (1,), "fmri2clip.dim_mapper.bias": None},
            "2 tensors do not fit:\n  missing: fmri2clip.dim_mapper.bias\n"
            "  shape: fmri_encoder.transformer.pred.bias is (1,), expected (6,)",
        ),
        ({"fmri_encoder.transformer.mask_token": None}, "missing: fmri_encoder.transformer.mask"),
        ({"fmri_encoder.transformer.pos_embed": None}, "it lacks fmri_encoder.transformer.pos_em"),
        ({"fmri_encoder.transformer.pos_embed": (3,)}, "pos_embed is (3,), must have 3 axes"),
        (HEADLESS, "holds no contrastive head, must hold one: fmri2clip.channel_mapper and"),
    ],
)
def test_what_does_not_fit_is_named(change, said, tmp_path):
    tensors = dict(checkpoint("fmri_encoder"))
    for name, shape in change.items():
        tensors.pop(name, None)
        if shape is not None:
            tensors[name] = np.zeros(shape, np.float32)
    source = write(tmp_path / "a.pth", tensors)
    call = lambda: import_model("fmri_encoder", source, tmp_path / "o", given=ALL_HEADS)  # noqa: E731
    rejection(call, str(source), said)
    assert contents(tmp_path).keys() == {str(source)}


def test_a_prefix_that_some_names_have_is_rejected(tmp_path):
    tensors = checkpoint("fmri_encoder")
    some = {("module." if i else "") + name: t for i, (name, t) in enumerate(tensors.items())}
    source = write(tmp_path / "a.pth", some)
    said = f"{len(tensors) - 1} of {len(tensors)} names begin with module., must be all or none"
    call = lambda: import_model("fmri_encoder", source, tmp_path / "o", given=ALL_HEADS)  # noqa: E731
    rejection(call, str(source), said)


@pytest.mark.parametrize("heads", [0, -2, 3, 2.0, True, "two", None])
def test_heads_must_divide_the_width(heads, tmp_path):
    source = write(tmp_path / "a.pth", checkpoint("fmri_encoder"))
    given = ALL_HEADS | {"num_heads": heads}
    call = lambda: import_model("fmri_encoder", source, tmp_path / "o", given=given)  # noqa: E731
    rejection(call, str(source), f"num_heads is {heads!r}, must be a whole number that divides")


def test_a_decoder_that_is_none_or_does_not_fit_is_rejected(tmp_path):
    source, target = tmp_path / "encoder", tmp_path / "b.pth"
    tiny.write("fmri_encoder", source)
    tiny.write("vit", tmp_path / "vit")
    tiny.write("fmri_autoencoder", tmp_path / "whole")
    import_model("fmri_autoencoder", tmp_path / "whole", tmp_path / "bare", drop_decoder=True)
    config = CONFIGS["fmri_autoencoder"] | {"patch_size": 4}
    shapes = pretrained.parameter_shapes("fmri_autoencoder", FmriAutoencoder(**config))
    params = jax.tree.map(lambda x: np.zeros(x.shape, np.float32), shapes)
    pretrained.save("fmri_autoencoder", tmp_path / "other", params, config=config)
    before = contents(tmp_path)
    for decoder, said in (
        ("vit", "its configuration describes no fmri_autoencoder"),
        ("bare", "has no decoder"),
        ("other", f"its decoder fits no {source}:"),
    ):
        rejection(
            lambda decoder=decoder: export_model(
                "fmri_encoder", source, target, decoder=tmp_path / decoder
            ),
            f"{tmp_path / decoder}: ",
            said,
        )
    assert contents(tmp_path) == before


def test_other_checkpoints_are_rejected(tmp_path):
    strange = write(tmp_path / "a.pth", {"weight": np.zeros(3, np.float32)})
    said = "holds no official GLFA or fMRI-PTE checkpoint, its tensors are weight"
    rejection(lambda: import_model("fmri_encoder", strange, tmp_path / "ours"), said)
    source = write(tmp_path / "b.pth", checkpoint("fmri_autoencoder"))
    said = "holds a fmri_autoencoder, asked for was a fmri_encoder"
    rejection(lambda: import_model("fmri_encoder", source, tmp_path / "ours"), said)
    rejection(lambda: import_model("vit", source, tmp_path / "ours"), "is read from its folder")
    rejection(lambda: import_model("lea", source, tmp_path / "ours"), "is read from its folder")


def test_exports_that_make_no_sense_are_rejected(tmp_path):
    tiny.write("fmri_autoencoder", tmp_path / "a")
    tiny.write("vit", tmp_path / "vit")
    before = contents(tmp_path)
    target = tmp_path / "b.pth"
    rejection(lambda: export_model("vit", tmp_path / "vit", target), "must be a folder")
    rejection(
        lambda: export_model("fmri_autoencoder", tmp_path / "a", target, decoder=tmp_path / "a"),
        "takes no decoder",
    )
    rejection(
        lambda: export_model("vit", tmp_path / "vit", tmp_path / "c", module_prefix=True),
        "are for official checkpoints",
    )
    assert contents(tmp_path) == before
    target.write_text("mine")
    rejection(lambda: export_model("fmri_autoencoder", tmp_path / "a", target), "exists already")
    assert target.read_text() == "mine"
