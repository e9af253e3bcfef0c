"""YAML that would take for ever, or more than text, is rejected in a part of a sentence."""

import pytest

from glfa_jax import strict_yaml
from glfa_jax.errors import InputError

BOMB = "a0: &a0 [1, 1]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "holds more than 50,000 values, aliases counted in full"),
        ("a: &a [*a]", "line 1 names what it is itself a part of"),
        ("a: &a\n  b: *a", "line 2 names what it is itself a part of"),
        ("[" * 10**5, "line 1 is nested in more than 50 sections"),
        ("{a: " * 10**5, "line 1 is nested in more than 50 sections"),
        ("- " * 10**5, "line 1 is nested in more than 50 sections"),
        ("\n".join(" " * i + "a:" for i in range(1000)), "line 50 is nested in more than"),
        ("a" * 2**19 + "a", "524,289 characters, far more"),
        ("a: b\nc: " + "1" * 10**5, "line 2 holds a value of 100,000 characters"),
        ("a: 1:" + "1:" * 5000 + "1", "line 1 holds a value of"),
        ("a: " + ":".join(["1"] * 800) + ".5", r"not valid YAML \("),
        ("a: 1\nb: 2\na: 3", "key 'a' is given twice, the second time in line 3"),
        ("a: 2020-13-45", r"not valid YAML \(month must be"),
        (
            "a: !!python/name:os.system",
            r"not valid YAML \(could not determine .*, line 1, column 4",
        ),
        ("a: !!python/object/apply:os.system [ls]", r"not valid YAML \(could not determine"),
        ("a: !!int ''", r"not valid YAML \("),
        ("a: !!bool maybe", r"not valid YAML \("),
        ("a: !!timestamp now", r"not valid YAML \("),
        ("? [a]\n: b", r"not valid YAML \(.*unhashable key, line 1"),
        ("a: *b", r"not valid YAML \(found undefined alias 'b', line 1"),
        ("a: 1\n---\nb: 2", r"not valid YAML \("),
        ("a: \0", r"not valid YAML \("),
        ('a: "\\0"', r"line 1 holds '\\x00', which is no character"),
        ('a:\n  "b\\ud800": 1', r"line 2 holds '\\ud800', which is no character"),
    ],
)
def test_what_cannot_be_a_configuration_is_rejected_at_once(text, message):
    with pytest.raises(InputError, match=message) as caught:
        strict_yaml.parse(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_as_many_keys_as_there_may_be_are_read():
    keys = {f"k{i}": i for i in range(1000)}
    assert strict_yaml.parse(strict_yaml.dump(keys)) == keys


def test_aliases_are_values_of_their_own():
    tree = strict_yaml.parse("a: &a {b: [1]}\nc: [*a, *a]\n")
    tree["c"][0]["b"].append(2)
    assert tree == {"a": {"b": [1]}, "c": [{"b": [1, 2]}, {"b": [1]}]}
