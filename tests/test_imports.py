"""Who may know whom: the packages' imports, read from the sources without running them."""

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = ("glfa_jax", "train", "eval", "examples", "benchmarks", "tests")
STANDARD = frozenset(sys.stdlib_module_names)
# What any of our modules may name: annotations, errors, and how files are read and written.
COMMON = (
    *("jaxtyping", "numpy"),
    *("glfa_jax.errors", "glfa_jax.files", "glfa_jax.lock", "glfa_jax.records"),
    *("glfa_jax.registry", "glfa_jax.starting"),
)

# The floors of the house, lowest first: a room knows rooms before it, and none behind.
FLOORS = (
    *(
        "errors",
        "starting",
        "files",
        "lock",
        "records",
        "registry",
        "strict_yaml",
        "unpickle",
        "batch",
    ),
    *("config", "cli", "results"),
    *("ops", "diffusion", "metrics", "models"),
    *("hub", "convert", "generators"),
    *("data", "training"),
    *("captioning", "comparison", "simulate", "preparation"),
    "alignments",
    *("method", "system", "start_from", "subject_alignment", "trained", "explain"),
    *("decoder", "protocol"),
    "report",
    *("stages", "evaluation", "decoding"),
    *("api", "export", "decode", "commands"),
)
# What is only ever started, by its module's name, stands above all rooms wherever it lies.
COMMANDS = (
    *("glfa_jax/data/prepare", "glfa_jax/data/look", "glfa_jax/data/fetch"),
    "glfa_jax/data/caption",
    "glfa_jax/__main__",
)


@dataclass(frozen=True)
class Rule:
    """Files below `where` (paths without the suffix) import only modules below `may`."""

    where: str
    may: tuple[str, ...]
    says: str


# The first rule that fits a file holds for it, so exceptions stand above what they are taken from.
LAYERS = (
    Rule(
        "glfa_jax/models/quantised",
        ("jax", "flax", "qwix", "glfa_jax.models"),
        "kernels are rounded by qwix",
    ),
    Rule("glfa_jax/models", ("jax", "flax", "glfa_jax.models", "glfa_jax.ops"), "models are pure"),
    Rule("glfa_jax/ops", ("jax", "glfa_jax.ops"), "ops know jax and numpy only"),
    Rule("glfa_jax/diffusion", ("jax", "glfa_jax.diffusion"), "diffusion knows jax only"),
    *(
        Rule(f"glfa_jax/metrics/{name}", ("jax", "scipy", "skimage", "glfa_jax.metrics"), says)
        for name, says in (
            ("ssim", "SSIM runs on the device"),
            ("optical_flow", "optical flow runs on the device"),
        )
    ),
    Rule("glfa_jax/metrics", ("scipy", "skimage", "glfa_jax.metrics"), "metrics run on the host"),
    # Loads a folder into a module ready to apply: needs jax for shapes, flax for the module's type
    # and the noise schedule that lies in a text-to-video folder.
    Rule(
        "glfa_jax/convert/pretrained",
        (
            *("jax", "flax", "glfa_jax.convert", "glfa_jax.models"),
            *("glfa_jax.diffusion.schedule", "glfa_jax.diffusion.flow"),
        ),
        "pretrained folders become modules and a schedule, nothing more",
    ),
    # Runs a model in PyTorch and in JAX.
    *(
        Rule(
            where,
            ("jax", "torch", "diffusers", "transformers", "glfa_jax.convert"),
            "verifying knows what it compares",
        )
        for where in (f"glfa_jax/convert/verify{part}" for part in ("", "_fmri", "_runs"))
    ),
    Rule("glfa_jax/convert/__main__", ("glfa_jax.cli", "glfa_jax.convert"), "arguments only"),
    Rule(
        "glfa_jax/convert/sources",
        ("glfa_jax.hub", "glfa_jax.convert"),
        "sources are files, and where they come from",
    ),
    Rule(
        "glfa_jax/convert",
        (
            *("safetensors", "ml_dtypes", "flax.traverse_util", "tqdm"),
            *("glfa_jax.convert", "glfa_jax.models", "glfa_jax.unpickle"),
        ),
        "conversion knows models, numpy and safetensors",
    ),
    Rule(
        "glfa_jax/generators",
        (
            *("jax", "flax", "glfa_jax.config", "glfa_jax.generators"),
            *("glfa_jax.convert", "glfa_jax.models", "glfa_jax.diffusion"),
        ),
        "generators know the models that they are made of",
    ),
    *(Rule(where, ("glfa_jax",), "a command starts what the package can do") for where in COMMANDS),
    Rule(
        "glfa_jax/data",
        (
            *("av", "grain", "h5py", "nibabel", "nilearn", "nltk", "PIL", "scipy"),
            *("tensorstore", "tqdm", "transformers"),
            *("glfa_jax.config", "glfa_jax.batch", "glfa_jax.data", "glfa_jax.unpickle"),
        ),
        "data yield numpy and touch no device",
    ),
    Rule(
        "glfa_jax/captioning/captioner",
        ("torch", "transformers", "glfa_jax.hub"),
        "a captioner is PyTorch's, and knows no study",
    ),
    Rule(
        "glfa_jax/captioning",
        ("tqdm", "glfa_jax.captioning", "glfa_jax.data"),
        "captioning knows data and touches no device itself",
    ),
    Rule(
        "glfa_jax/simulate",
        (
            *("nibabel", "pydantic", "scipy", "tqdm", "transformers"),
            *("glfa_jax.cli", "glfa_jax.config", "glfa_jax.data", "glfa_jax.simulate"),
        ),
        "simulated studies are numpy and touch no device",
    ),
    Rule(
        "glfa_jax/training",
        (
            *("jax", "flax", "optax", "orbax", "tensorboardX", "tqdm"),
            *("glfa_jax.config", "glfa_jax.batch", "glfa_jax.starting", "glfa_jax.training"),
        ),
        "the training core knows no model and no data",
    ),
    Rule(
        "glfa_jax/alignments",
        (
            *("jax", "flax", "optax", "glfa_jax.config", "glfa_jax.alignments"),
            *("glfa_jax.convert", "glfa_jax.models", "glfa_jax.ops"),
            *("glfa_jax.training.losses", "glfa_jax.training.optim"),
        ),
        "an alignment takes maps and gives maps, and knows no data and no run",
    ),
    Rule(
        "glfa_jax/comparison",
        ("glfa_jax.comparison", "glfa_jax.metrics", "glfa_jax.results"),
        "comparing is statistics of results",
    ),
    Rule(
        "glfa_jax/report/comparison",
        ("glfa_jax.comparison", "glfa_jax.metrics.statistics", "glfa_jax.report"),
        "the tables know what they show",
    ),
    Rule(
        "glfa_jax/report/inspection",
        ("scipy", "tqdm", "glfa_jax.data", "glfa_jax.report"),
        "a store is inspected through what data reads",
    ),
    Rule(
        "glfa_jax/report",
        (
            *("jinja2", "markupsafe", "matplotlib", "PIL"),
            *("glfa_jax.config", "glfa_jax.data.video"),
            *("glfa_jax.cli", "glfa_jax.method", "glfa_jax.report", "glfa_jax.results"),
        ),
        "the report is drawn from files",
    ),
    Rule(
        "glfa_jax/config",
        ("pydantic", "pydantic_core", "glfa_jax.strict_yaml", "glfa_jax.config"),
        "the schema knows nothing else",
    ),
    Rule("glfa_jax/strict_yaml", ("yaml",), "a text format knows nothing else"),
    Rule(
        "glfa_jax/cli",
        ("glfa_jax.config", "glfa_jax.starting"),
        "reading a command line starts no device",
    ),
    Rule("glfa_jax/hub", ("huggingface_hub",), "sending and fetching folders knows no model"),
    Rule("glfa_jax/results", (), "a file format knows nothing else"),
    Rule("glfa_jax/commands", ("glfa_jax.__version__",), "commands are imported when they start"),
    Rule("glfa_jax/errors", (), "errors know nothing"),
    Rule("glfa_jax/starting", (), "a command's first lines take no time to import"),
    Rule("glfa_jax/files", (), "files are read and written with numpy at most"),
    Rule("glfa_jax/lock", (), "a lock is a file"),
    Rule("glfa_jax/records", (), "JSON is read with nothing but annotations"),
    Rule("glfa_jax/registry", (), "a registry knows nothing of what it holds"),
    Rule("glfa_jax/unpickle", (), "pickles are read with nothing but the standard library"),
    Rule("glfa_jax/batch", (), "the contract knows nothing"),
    # The assembly of the parts: all of the package, never the programs.
    Rule("glfa_jax", ("jax", "flax", "tqdm", "glfa_jax"), "the package never knows its programs"),
    Rule("train", ("glfa_jax",), "train knows glfa_jax"),
    Rule("eval", ("glfa_jax",), "eval knows glfa_jax"),
    Rule(
        "examples",
        ("jax", "optax", "tokenizers", "examples", "glfa_jax"),
        "an example stands on the package",
    ),
)

# Modules that only these files may import.
OWNED = {
    "torch": (
        (
            *("tests/parity", "benchmarks"),
            *("glfa_jax/convert/verify", "glfa_jax/convert/verify_fmri"),
            *("glfa_jax/captioning/captioner", "tests/captioning"),
        ),
        "torch is there to compare with, and to caption clips",
    ),
    "diffusers": (
        ("tests/parity", "benchmarks", "glfa_jax/convert/verify"),
        "diffusers is there to compare with",
    ),
    "orbax": (("glfa_jax/training/checkpoints",), "orbax is hidden in one file"),
    "grain": (("glfa_jax/data/pipeline",), "grain is hidden in one file"),
    "jinja2": (("glfa_jax/report/html", "tests/report/test_html"), "jinja2 is hidden in one file"),
    "markupsafe": (
        ("glfa_jax/report/html", "tests/report/test_html"),
        "what is HTML already is said in one file",
    ),
    "nibabel": (
        (
            "glfa_jax/data",
            "glfa_jax/simulate",
            "tests/data",
            "tests/simulate",
            "benchmarks/fuzz",
            "benchmarks/rehearsal",
        ),
        "scanner files are read under data and written under simulate",
    ),
    "h5py": (
        ("glfa_jax/data", "tests/data", "benchmarks"),
        "scanner files are read under data",
    ),
    # The simulator's command builds a section of the schema and reports its mistakes.
    "pydantic": (
        ("glfa_jax/config", "glfa_jax/simulate/__main__"),
        "the schema is hidden in one file",
    ),
}

# Imported inside a function only, so that the module can be had without it.
LAZY = {
    # Slow to import, and most studies need neither.
    ("glfa_jax/data/hdf5", "h5py"),
    ("glfa_jax/data/readers", "nilearn"),
    ("glfa_jax/data/cleaning/confounds", "nilearn"),
    ("glfa_jax/data/cleaning/temporal", "nilearn"),
    ("glfa_jax/hub", "huggingface_hub"),
    # Whoever has captions needs no PyTorch.
    ("glfa_jax/captioning/captioner", "torch"),
    ("glfa_jax/captioning/captioner", "transformers"),
    # Reports are made without jax.
    ("glfa_jax/method", "glfa_jax.alignments"),
    ("glfa_jax/convert/verify", "torch"),
    ("glfa_jax/convert/verify", "diffusers"),
    ("glfa_jax/convert/verify", "glfa_jax.convert.verify_fmri"),
}


@dataclass(frozen=True)
class Import:
    module: str
    line: int
    top_level: bool


def imports(source: str, *, package: str = "") -> Iterator[Import]:
    """Every import of a module in `package`; `from a import b` counts as a.b, as b may be one."""

    def visit(node: ast.AST, top_level: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, top_level)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            for alias in node.names:
                yield Import(f"{base}.{alias.name}", node.lineno, top_level)
        inside = top_level and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, inside)

    return visit(ast.parse(source), True)


def below(name: str, tops: tuple[str, ...], *, separator: str) -> bool:
    return any(name == top or name.startswith(top + separator) for top in tops)


def violations(path: str, source: str) -> list[str]:
    """One sentence for each import that the rules above forbid to the file at `path`."""
    stem = path.removesuffix(".py").removesuffix("/__init__")
    package = path.rsplit("/", 1)[0].replace("/", ".")
    rule = next((r for r in LAYERS if below(stem, (r.where,), separator="/")), None)
    found = []
    for entry in imports(source, package=package):
        name, top = entry.module, entry.module.split(".")[0]
        where = f"{path}:{entry.line} imports {name}"
        owners, says = OWNED.get(top, ((stem,), ""))
        if not below(stem, owners, separator="/"):
            found.append(f"{where}, but only {' and '.join(owners)} may: {says}")
        elif (
            rule is not None
            and top not in STANDARD
            and not below(name, (*rule.may, *COMMON), separator=".")
        ):
            allowed = ", ".join(sorted((*rule.may, *COMMON)))
            found.append(f"{where}, but {rule.where} may import only {allowed}: {rule.says}")
        for lazy_in, lazy in LAZY:
            if stem == lazy_in and entry.top_level and below(name, (lazy,), separator="."):
                found.append(f"{where} at its top, but may only inside a function")
    return found


def test_every_file_knows_only_whom_it_may():
    files = [p for top in SOURCES for p in sorted((ROOT / top).rglob("*.py"))]
    found = [
        sentence
        for file in files
        for sentence in violations(
            file.relative_to(ROOT).as_posix(), file.read_text(encoding="utf-8")
        )
    ]
    assert not found, "\n".join(found)


def rooms(path: str, source: str) -> Iterator[tuple[str, int]]:
    """The rooms of the package that a file of it knows, with the lines."""
    for entry in imports(source, package=path.rsplit("/", 1)[0].replace("/", ".")):
        _, *inside = entry.module.split(".")
        if entry.module.startswith("glfa_jax.") and not inside[0].startswith("__"):
            yield inside[0], entry.line


def upward(path: str, source: str) -> list[str]:
    """One sentence for each import that runs up."""
    stem = path.removesuffix(".py")
    own = stem.split("/")[1]
    if stem in COMMANDS or stem.endswith("/__main__") or own == "__init__":
        return []
    return [
        f"{path}:{line} imports {room}, which stands above {own}"
        for room, line in rooms(path, source)
        if room != own and FLOORS.index(room) > FLOORS.index(own)
    ]


def test_no_arrow_runs_up():
    files = sorted((ROOT / "glfa_jax").rglob("*.py"))
    found = [
        sentence
        for file in files
        for sentence in upward(file.relative_to(ROOT).as_posix(), file.read_text(encoding="utf-8"))
    ]
    assert not found, "\n".join(found)


def test_every_room_stands_on_one_floor():
    there = {p.stem for p in (ROOT / "glfa_jax").iterdir() if (p / "__init__.py").is_file()}
    there |= {p.stem for p in (ROOT / "glfa_jax").glob("*.py") if not p.stem.startswith("__")}
    assert sorted(FLOORS) == sorted(there)


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("glfa_jax/data/store.py", "from glfa_jax.report import figures"),
        ("glfa_jax/data/store.py", "def f():\n    from glfa_jax.simulate.study import x"),
        ("glfa_jax/files.py", "from glfa_jax import config"),
        ("glfa_jax/models/vae.py", "from .. import system"),
    ],
)
def test_an_arrow_that_runs_up_is_named(path, line):
    [sentence] = upward(path, line)
    assert sentence.startswith(f"{path}:")
    assert "stands above" in sentence
    assert not upward("glfa_jax/data/prepare.py", line)


def test_the_rules_speak_of_files_that_exist():
    named = [rule.where for rule in LAYERS] + [stem for stem, _ in LAZY]
    named += [owner for owners, _ in OWNED.values() for owner in owners]
    gone = [n for n in named if not (ROOT / n).is_dir() and not (ROOT / f"{n}.py").is_file()]
    assert not gone


@pytest.mark.parametrize(
    ("path", "line", "reason"),
    [
        ("glfa_jax/system.py", "import train.cotrain", "never knows its programs"),
        ("glfa_jax/system.py", "from eval import score", "never knows its programs"),
        ("train/cotrain.py", "from eval.sample import command", "train knows glfa_jax"),
        ("eval/score.py", "from train import stages", "eval knows glfa_jax"),
        ("glfa_jax/models/vae.py", "from glfa_jax import config", "models are pure"),
        ("glfa_jax/models/vae.py", "from ..data import store", "models are pure"),
        ("glfa_jax/models/__init__.py", "from .. import system", "models are pure"),
        ("glfa_jax/models/vae.py", "import optax", "models are pure"),
        ("glfa_jax/alignments/glfa.py", "from glfa_jax.data import store", "knows no data"),
        ("glfa_jax/ops/local_conv.py", "import flax.linen as nn", "jax and numpy only"),
        ("glfa_jax/diffusion/sampler.py", "from glfa_jax.models import vae", "jax only"),
        ("glfa_jax/metrics/nway.py", "import glfa_jax.data.store", "on the host"),
        ("glfa_jax/convert/vae.py", "import jax", "models, numpy and safetensors"),
        ("glfa_jax/convert/vae.py", "from glfa_jax.diffusion import schedule", "conversion"),
        ("glfa_jax/convert/pretrained.py", "from glfa_jax.diffusion import sampler", "folders"),
        ("glfa_jax/generators/protocol.py", "from glfa_jax.training import loop", "made of"),
        ("glfa_jax/data/pipeline.py", "def f():\n    import jax", "touch no device"),
        ("glfa_jax/data/store.py", "from glfa_jax.simulate import study", "touch no device"),
        ("glfa_jax/data/store.py", "from glfa_jax.report import figures", "touch no device"),
        ("glfa_jax/data/store.py", "from glfa_jax.captioning import work", "touch no device"),
        ("glfa_jax/captioning/work.py", "import torch", "and to caption clips"),
        ("glfa_jax/captioning/captioner.py", "import torch", "only inside a function"),
        ("glfa_jax/captioning/captioner.py", "from glfa_jax.data import video", "knows no study"),
        ("glfa_jax/report/inspection/page.py", "import jax", "what data reads"),
        ("glfa_jax/data/prepare.py", "import jax", "starts what the package can do"),
        ("glfa_jax/simulate/cortex.py", "from jax import numpy", "touch no device"),
        ("glfa_jax/training/loop.py", "from glfa_jax.models import vae", "knows no model"),
        ("glfa_jax/report/page.py", "import jax", "drawn from files"),
        ("glfa_jax/report/comparison/page.py", "import jax", "know what they show"),
        ("glfa_jax/report/page.py", "import jinja2", "hidden in one file"),
        ("glfa_jax/comparison/methods.py", "import glfa_jax.report.page", "statistics of results"),
        ("glfa_jax/results.py", "from glfa_jax import config", "knows nothing else"),
        ("train/cotrain.py", "import torch", "only tests/parity and benchmarks and"),
        ("tests/models/test_vae.py", "import torch.nn", "only tests/parity and benchmarks and"),
        ("glfa_jax/convert/transfer.py", "import torch", "there to compare with"),
        ("glfa_jax/convert/verify.py", "import torch", "only inside a function"),
        ("glfa_jax/convert/__main__.py", "import safetensors", "arguments only"),
        ("train/cotrain.py", "import orbax.checkpoint", "one file"),
        ("glfa_jax/training/loop.py", "import orbax.checkpoint", "one file"),
        ("glfa_jax/data/prepare.py", "import grain", "one file"),
        ("eval/sample.py", "import nibabel", "scanner files"),
        ("train/cotrain.py", "import h5py", "scanner files"),
        ("glfa_jax/data/hdf5.py", "import h5py", "only inside a function"),
        ("glfa_jax/training/loop.py", "from pydantic import BaseModel", "one file"),
    ],
)
def test_a_wrong_import_is_named_with_its_line_and_rule(path: str, line: str, reason: str):
    found = violations(path, f"import json\n\n{line}\n")
    assert len(found) == 1
    last = 3 + line.count("\n")
    assert found[0].startswith(f"{path}:{last} imports ")
    assert reason in found[0]
    assert not violations(path, "import json\nimport numpy\n")


def test_only_whole_names_count():
    assert not violations("glfa_jax/models/vae.py", "import jax.numpy\nfrom . import layers\n")
    assert violations("glfa_jax/models/vae.py", "import jaxlib\n")
    assert violations("glfa_jax/models/vae.py", "from glfa_jax.models_other import x\n")
