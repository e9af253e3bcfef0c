"""What is registered is known by its name, and files are imported only when somebody asks."""

import sys
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module

import pytest

from glfa_jax.errors import InputError
from glfa_jax.registry import Registry

PACKAGE = """
from tests.test_registry import Thing
from glfa_jax.registry import Registry

THINGS = Registry(__name__, what="thing")
"""


@dataclass(frozen=True)
class Thing:
    name: str


@pytest.fixture
def things(tmp_path, monkeypatch) -> Registry[Thing]:
    """Of a package whose two files register a thing each."""
    folder = tmp_path / "some_things"
    folder.mkdir()
    (folder / "__init__.py").write_text(PACKAGE)
    for name in ("a", "b"):
        (folder / f"{name}.py").write_text(
            f"from some_things import THINGS, Thing\n\nTHINGS.register(Thing('{name}'))\n"
        )
    monkeypatch.syspath_prepend(tmp_path)
    from some_things import THINGS  # pyright: ignore[reportMissingImports]

    yield THINGS
    for name in [name for name in sys.modules if name.partition(".")[0] == "some_things"]:
        del sys.modules[name]


def test_files_are_imported_when_they_are_asked_for(things):
    assert not {"some_things.a", "some_things.b"} & set(sys.modules)
    assert [*things] == ["a", "b"]
    assert things["b"] == Thing("b")


def test_the_order_is_that_of_the_files_whichever_is_imported_first(things):
    things.register(Thing("0"))  # by this file, which is none of the package
    import_module("some_things.b")
    assert [*things] == ["a", "b", "0"]


def test_a_file_that_cannot_be_imported_is_named(things, tmp_path):
    broken = tmp_path / "some_things" / "aa.py"
    broken.write_text("import gone_away\n")
    said = rf"^{broken}: cannot be imported, .* each thing \(ModuleNotFoundError: .*gone_away"
    with pytest.raises(ImportError, match=said):
        things.get("b")
    broken.unlink()
    assert things.get("b") == Thing("b")


def test_a_name_is_taken_once(things):
    things.register(Thing("c"))
    with pytest.raises(ValueError, match="thing 'c': is registered already"):
        things.register(Thing("c"))
    assert set(things) == {"a", "b", "c"}


def test_what_is_there_for_a_while_is_gone_afterwards(things):
    other = Thing("a")
    with suppress(RuntimeError), things.temporarily(other), things.temporarily(Thing("z")):
        assert things["a"] is other
        assert "z" in things
        raise RuntimeError
    assert [*things] == ["a", "b"]
    assert things["a"] is not other


def test_an_unknown_name_is_rejected_with_those_that_there_are(things):
    assert things.named("a", key="data.thing") == Thing("a")
    with pytest.raises(InputError, match=r"^data.thing: 'q' is no thing, must be one of a, b$"):
        things.named("q", key="data.thing")
