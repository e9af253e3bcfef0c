"""Pickles read as data: they build plain containers and can call nothing but what is listed.

A pickle is a program for a stack machine that may name and call any function there is. This
machine knows only the instructions that build containers. A global is to it a mere name: it is
never imported, and only the functions that the caller lists are called. `pickle.Unpickler` with a
`find_class` of its own would not do: it still sets states, hashes keys and takes memory as told.
"""

import itertools
import pickletools
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import IO, Any

from glfa_jax.errors import InputError

# Far more than any checkpoint needs. A byte may make a container of a hundred bytes.
MOST_INSTRUCTIONS = 2**22
LARGEST_KEY = 2**60
# By how much calls may multiply what the pickle holds, which it can name again and again.
GROWTH, ALWAYS = 16, 2**20


class PickledError(InputError):
    """A pickle or checkpoint cannot be read or written; says what is wrong, and where."""


class Global(str):
    """The name of a global, all that is kept of one that stands as a value in a pickle."""

    __slots__ = ()


class Stateful:
    """What a listed function may give to have its state set by the pickle."""

    def set_state(self, state: Any) -> None:
        raise NotImplementedError


def _list(value: Any) -> list[Any]:
    """A list: a small file may hold an array that is endless to walk through."""
    if not isinstance(value, list):
        raise PickledError(f"builds a container from a {type(value).__name__}, must be a list")
    return value


def _keys(items: list[Any]) -> list[Any]:
    """What may be hashed in no time: nested tuples would take for ever or exhaust the C stack, and
    of complex and large whole numbers any number can be found that share a hash."""
    for item in items:
        if item is not None and not isinstance(item, (str, bytes, int, float)):
            raise PickledError(f"holds a {type(item).__name__} as a key, must be text or a number")
        if isinstance(item, int) and abs(item) > LARGEST_KEY:
            raise PickledError(f"holds a key beyond {LARGEST_KEY:,}")
    return items


def _pairs(keys: list[Any], values: list[Any]) -> Iterable[tuple[Any, Any]]:
    return zip(_keys(keys), values, strict=True)


def _ordered_dict(*pairs: list[Any]) -> OrderedDict[Any, Any]:
    entries = [_list(pair) for pair in itertools.chain.from_iterable(map(_list, pairs))]
    return OrderedDict(_pairs([key for key, _ in entries], [value for _, value in entries]))


def _encode(text: str, encoding: str) -> bytes:
    if not isinstance(text, str) or encoding != "latin1":
        raise PickledError("holds bytes in another form than text in latin1")
    return text.encode("latin1")


# How the older protocols spell containers that have no instruction there.
_CONTAINERS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _ordered_dict,
    "_codecs.encode": _encode,
    **{
        f"{module}.{name}": build
        for module in ("builtins", "__builtin__")
        for name, build in {
            "set": lambda items: set(_keys(_list(items))),
            "bytes": lambda: b"",  # others go through encode
            "complex": complex,
        }.items()
    },
}
_ARGUMENTS = frozenset(
    f"{size}{kind}"
    for size, kind in itertools.product(("", "SHORT_"), ("BINSTRING", "BINBYTES", "BINUNICODE"))
) | {"BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "BINUNICODE8", "BINBYTES8"}
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}


def load(
    stream: IO[bytes],
    *,
    functions: Mapping[str, Callable[..., Any]],
    names: Collection[str],
    persistent: Callable[[Any], Any],
    most: int = MOST_INSTRUCTIONS,
) -> Any:
    """The object of the pickle at the stream's position; the stream is left just behind it.

    `functions`: by dotted name, what the pickle may call besides what builds containers; `names`:
    globals that it may name; `persistent`: from the id of an object kept elsewhere to the object;
    `most`: instructions that it may hold.
    Raises PickledError for anything else before it has any effect, and many kinds of exception for
    a damaged pickle.
    """
    functions = {**_CONTAINERS, **functions}
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}
    given, begin = 0, stream.tell()

    def since_mark() -> list[Any]:
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    def named(*parts: str) -> Global:
        found = Global(".".join(parts))
        if found not in functions and found not in names:
            raise PickledError(
                f"names {found[:100]!r}, which could run code; only numbers, text, tensors "
                "and plain containers are read, so save it again without that"
            )
        return found

    instructions: Iterator[tuple[Any, Any, Any]] = pickletools.genops(stream)
    for count, (instruction, argument, place) in enumerate(instructions):
        if count == most:
            raise PickledError(f"holds more than {most:,} instructions")
        match instruction.name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                break
            case name if name in _ARGUMENTS:
                stack.append(argument)
            case name if name in _CONSTANTS:
                stack.append(_CONSTANTS[name]())
            case "MARK":
                marks.append(len(stack))
            case "TUPLE":
                stack.append(tuple(since_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3" as name:
                size = int(name[-1])
                stack[-size:] = [tuple(stack[-size:])]
            case "APPEND" | "APPENDS" as name:
                items = since_mark() if name == "APPENDS" else [stack.pop()]
                stack[-1].extend(items)
            case "SETITEM" | "SETITEMS" as name:
                items = since_mark() if name == "SETITEMS" else [stack.pop(-2), stack.pop()]
                mapping = stack[-1]
                if not isinstance(mapping, dict):
                    raise PickledError(f"sets items of a {type(mapping).__name__}")
                mapping.update(_pairs(items[::2], items[1::2]))
            case "ADDITEMS":
                items = since_mark()
                members = stack[-1]
                if not isinstance(members, set):
                    raise PickledError(f"adds members to a {type(members).__name__}")
                members.update(_keys(items))
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL":
                stack.append(named(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                stack[-2:] = [named(*stack[-2:])]
            case "REDUCE":
                function, arguments = stack[-2:]
                if not isinstance(function, Global) or function not in functions:
                    raise PickledError("calls something that is no function")
                if not isinstance(arguments, tuple):
                    raise PickledError("calls a function with arguments that are no tuple")
                given += sum(len(a) for a in arguments if isinstance(a, (str, bytes, list, tuple)))
                if given > ALWAYS + GROWTH * (place - begin):
                    raise PickledError("builds far more than it holds")
                stack[-2:] = [functions[function](*arguments)]
            case "BUILD":
                state = stack.pop()  # for a state dict, the versions of its modules: not needed
                target = stack[-1]
                if isinstance(target, Stateful):
                    target.set_state(state)
                elif not (isinstance(target, OrderedDict) and isinstance(state, dict)):
                    raise PickledError("sets the state of an object that has none")
            case "BINPERSID":
                stack.append(persistent(stack.pop()))
            case name:
                raise PickledError(f"holds the instruction {name}, which plain containers need not")
    (content,) = stack
    return content
