"""What documents and comments refer to exists: sections, links and their anchors, commands."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from glfa_jax.commands import COMMANDS

ROOT = Path(__file__).parents[1]
FOLDERS = ("benchmarks", "configs", "docs", "eval", "examples", "foundation", "glfa_jax", "launch")
FOLDERS += ("tests", "train")
MADE = {"_build", "_gallery"}  # by Sphinx
CITED = {"SPEC": "docs/specification.md", "DESIGN": "docs/design.md"}
PLACES = r"(?:,?\s*(?:and\s+)?§\d+(?:\.\d+)*)*"


def texts(*suffixes: str) -> dict[str, str]:
    """Files of the repository by their paths."""
    files = [*ROOT.iterdir(), *(path for top in FOLDERS for path in (ROOT / top).rglob("*"))]
    return {
        path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
        for path in files
        if path.suffix in suffixes and path.is_file() and not MADE.intersection(path.parts)
    }


def headings(text: str) -> list[str]:
    return re.findall(r"^#+ +(.+?) *$", without_code(text), re.MULTILINE)


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def sections(text: str) -> set[str]:
    """The numbers of its numbered headings."""
    numbers = (re.match(r"(\d+(?:\.\d+)*)\.? ", heading) for heading in headings(text))
    return {match[1] for match in numbers if match}


def anchors(text: str) -> set[str]:
    """Of its headings, as GitHub and MyST make them."""
    made = (
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings(text)
    )
    return set(made)


def bad_citations(text: str) -> list[str]:
    """Short forms without a section, or with one that is not there."""
    found = []
    for match in re.finditer(rf"\b(SPEC|DESIGN)\b({PLACES})", text):
        cited = re.findall(r"§([\d.]*\d)", match[2])
        there = sections((ROOT / CITED[match[1]]).read_text(encoding="utf-8"))
        if not cited or not there.issuperset(cited):
            found.append(match[0])
    return found


def bad_links(path: str, text: str) -> list[str]:
    """Relative links to what is not there."""
    found = []
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(text)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        linked = (ROOT / path).parent / name if name else ROOT / path
        if not linked.exists() or (
            anchor and anchor not in anchors(linked.read_text(encoding="utf-8"))
        ):
            found.append(target)
    return found


def bad_commands(text: str) -> list[str]:
    """Modules that are neither of the repository nor installed, and subcommands that are none."""
    modules = re.findall(r"python3? -m ([\w.]*\w)", text)
    subcommands = re.findall(r"\bglfa-jax ([a-z]+)", text)
    return [
        *(module for module in modules if not startable(module)),
        *(name for name in subcommands if name not in COMMANDS),
    ]


def startable(module: str) -> bool:
    path, top = ROOT / module.replace(".", "/"), module.partition(".")[0]
    if (ROOT / top).is_dir():
        return path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()
    return find_spec(top) is not None


def test_every_citation_names_a_section():
    files = texts(".py", ".md", ".yaml", ".toml", ".sh")
    del files["tests/test_docs.py"]
    found = {path: bad for path, text in files.items() if (bad := bad_citations(text))}
    assert not found
    cited = " ".join(files.values())
    assert "SPEC §2.2" in cited
    assert "DESIGN §4" in cited


def test_sections_of_the_specification_name_each_other_rightly():
    for path in CITED.values():
        text = (ROOT / path).read_text(encoding="utf-8")
        own = re.sub(rf"\b(?:SPEC|DESIGN)\b{PLACES}", "", text)
        assert sections(text).issuperset(re.findall(r"§([\d.]*\d)", own)), path


def test_every_relative_link_resolves():
    files = texts(".md")
    assert "docs/specification.md" in files
    found = {path: bad for path, text in files.items() if (bad := bad_links(path, text))}
    assert not found


def test_every_command_of_a_document_exists():
    files = texts(".md", ".yaml")
    found = {path: bad for path, text in files.items() if (bad := bad_commands(text))}
    assert not found


def test_every_document_that_code_names_exists():
    found = {
        f"{path}: {name}"
        for path, text in texts(".py", ".yaml", ".sh").items()
        for name in re.findall(r"\bdocs/[\w/]+\.md\b", text)
        if not (ROOT / name).is_file()
    }
    assert not found


def test_every_test_that_a_document_names_exists():
    named = {
        (file, name)
        for text in texts(".md").values()
        for file, name in re.findall(r"`(tests/[\w/]+(?<!NAME)\.py)(?:::(\w+))?`", text)
    }
    assert len(named) > 20
    for file, name in named:
        assert (ROOT / file).is_file(), file
        assert f"def {name}" in (ROOT / file).read_text(encoding="utf-8"), f"{file}::{name}"


@pytest.mark.parametrize("text", ["SPEC §99", "SPEC §2.99", "DESIGN §3, §99", "as SPEC says"])
def test_a_wrong_citation_is_found(text: str):
    assert bad_citations(text)
    assert not bad_citations("SPEC §2.1, §3 and §6.3, DESIGN §4")


@pytest.mark.parametrize("link", ["gone.md", "design.md#gone", "#gone"])
def test_a_wrong_link_is_found(link: str):
    assert bad_links("docs/specification.md", f"[text]({link})") == [link]
    assert not bad_links("docs/specification.md", "[text](design.md#1-the-way-of-the-data)")


@pytest.mark.parametrize("module", ["train.gone", "glfa_jax.data.store_", "nobody_has_this"])
def test_a_wrong_command_is_found(module: str):
    assert bad_commands(f"    python -m {module} --config X") == [module]
    assert bad_commands("glfa-jax gone") == ["gone"]
    assert not bad_commands("python -m train.cotrain --config X; glfa-jax cotrain --config X")
