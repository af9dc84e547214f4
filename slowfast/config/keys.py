"""Declaration of configuration keys: default, range and meaning of each in one place, and the check of a value."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from slowfast.utils.errors import UserError


@dataclass(frozen=True)
class Key:
    """One configuration key, whose values have the type of its default (whole numbers if that is one of ``words``)."""

    default: Any
    meaning: str  # for the reader of docs/configuration.md
    allowed: str = ""  # the range in words
    is_valid: Callable[[Any], bool] = lambda value: True
    words: tuple[str, ...] = ()  # values of another type that are allowed as well

    def check(self, name: str, value: Any) -> None:
        """Raise UserError if ``value``, of the right type, is out of range."""
        if value not in self.words and not self.is_valid(value):
            raise UserError(f"{name} is {value!r}; allowed: {self.allowed}")


def text(default: str, meaning: str) -> Key:
    """Declare a key that takes any text."""
    return Key(default, meaning)


def flag(default: bool, meaning: str) -> Key:
    """Declare a key that is True or False."""
    return Key(default, meaning)


def choice(default: str, *others: str, meaning: str) -> Key:
    """Declare a key that takes one of several words."""
    words = (default, *others)
    return Key(default, meaning, " | ".join(words), words.__contains__)


def number(default: float | int | str, meaning: str, *words: str, **bounds: float) -> Key:
    """Declare a number or one of ``words``; integer if the default is one or a word; bounds as of :func:`_range`."""
    is_valid, allowed = _range(**bounds)
    return Key(default, meaning, " or ".join((*words, allowed)), is_valid, words)


def numbers(
    default: list,
    meaning: str,
    length: int | None = None,
    rising: bool = False,
    words: tuple[str, ...] = (),
    **bounds: float,
) -> Key:
    """Declare a list of numbers within ``bounds``, or one of ``words``; ``rising`` for [low, high] with low <= high.

    A list of some ``length`` may be empty if the default is.
    """
    is_valid, allowed = _range(**bounds)

    def all_valid(values: list) -> bool:
        has_length = length is None or len(values) == length or not (values or default)
        return has_length and all(map(is_valid, values)) and (not rising or values == sorted(values))

    count = f"{'' if default else '[] or '}{length} values" if length else "values"
    allowed = f"{count}, each {allowed}" + (", rising" if rising else "")
    return Key(default, meaning, " or ".join((*words, allowed)), all_valid, words)


def names(default: list[str], meaning: str) -> Key:
    """Declare a list of words, which may be empty if the default is."""

    def all_valid(values: list) -> bool:
        return all(isinstance(value, str) for value in values) and (bool(values) or not default)

    return Key(default, meaning, "one name or more" if default else "names", all_valid)


def mapping(meaning: str) -> Key:
    """Declare a mapping of names to plain values, empty at first, that whoever reads it checks."""
    return Key({}, meaning, "{name: value, ...}")


def _range(
    low: float | None = None, high: float | None = None, above: float | None = None, below: float | None = None
) -> tuple[Callable[[float], bool], str]:
    """Return the test of a range, which NaN and infinity never pass, and its description.

    ``low`` and ``high`` belong to the range, ``above`` and ``below`` do not.
    """
    lower = low if low is not None else above
    upper = high if high is not None else below

    def is_valid(value: float) -> bool:
        if not isinstance(value, (int, float)):  # in a list, whose empty default says no type
            return False
        is_finite = value == value and abs(value) != float("inf")
        is_above = lower is None or value > lower or (low is not None and value == low)
        is_below = upper is None or value < upper or (high is not None and value == high)
        return is_finite and is_above and is_below

    parts = [] if lower is None else [f"at least {low:g}" if low is not None else f"above {above:g}"]
    parts += [] if upper is None else [f"at most {high:g}" if high is not None else f"below {below:g}"]
    return is_valid, " and ".join(parts) or "a number"
