"""Numbers and names as the page writes them."""

from collections.abc import Mapping, Sequence


def digits_of(value: float) -> int:
    return 3 if abs(value) < 1.5 else 2 if abs(value) < 10 else 1


def value_text(value: float | None, *, digits: int | None = None) -> str:
    if value is None:
        return "–"
    digits = digits_of(value) if digits is None else digits
    rounded = round(value, digits) + 0.0  # no minus before zero
    return f"{rounded:,.{digits}f}".replace("-", "−")


def count_text(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def minutes_text(minutes: float) -> str:
    return f"{minutes:.3g} minute{'' if minutes == 1 else 's'}"


def p_text(value: float | None) -> str:
    if value is None:
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def listing(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def subjects_text(names: Sequence[str]) -> str:
    return f"subject{'s' if len(names) > 1 else ''} {listing(names)}"


def called(method: str, options: Mapping[str, object]) -> str:
    """A method of alignment with the options that were given to it."""
    name = "GLFA" if method == "glfa" else method
    given = ", ".join(f"{key} {value}" for key, value in options.items() if key != "methods")
    parts = f" ({options['methods']})" if "methods" in options else ""
    return name + parts + (f" with {given}" if given else "")
