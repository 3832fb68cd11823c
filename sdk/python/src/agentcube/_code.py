"""What is done to code and commands before they are sent."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from ._settings import require_seconds
from .exceptions import UnsupportedLanguageError


@dataclass(frozen=True)
class Language:
    """How a language is run: interpreter and the ending of its script files."""

    interpreter: str
    suffix: str


_PYTHON = Language("python3", ".py")
LANGUAGES = {
    "python": _PYTHON,
    "python3": _PYTHON,
    "py": _PYTHON,
    "bash": Language("bash", ".sh"),
    "sh": Language("sh", ".sh"),
}


def language(name: str) -> Language:
    """The language of that name; case does not matter.

    Raises:
        UnsupportedLanguageError: There is none.
    """
    if not isinstance(name, str):
        raise TypeError(f"language is a string, not {type(name).__name__}")
    found = LANGUAGES.get(name.lower())
    if found is None:
        known = ", ".join(LANGUAGES)
        raise UnsupportedLanguageError(f"language {name!r} is not one of: {known}")
    return found


def script_name(lang: Language) -> str:
    """A new file name. Random, so that scripts running at the same time do not meet."""
    return f"script_{os.urandom(16).hex()}{lang.suffix}"


def dedent(code: str) -> str:
    """Take away the margin that all lines share.

    Unlike ``textwrap.dedent`` it leaves code without a margin exactly as it is, blank
    lines within string literals included, and knows no line ends but newlines.
    """
    lines = code.split("\n")
    margin: str | None = None
    for line in lines:
        stripped = line.lstrip(" \t")
        if stripped in {"", "\r"}:
            continue
        indent = line[: len(line) - len(stripped)]
        margin = indent if margin is None else _common_prefix(margin, indent)
        if not margin:
            return code
    if not margin:
        return code
    return "\n".join(line[len(_common_prefix(margin, line)) :] for line in lines)


def argv(command: str | Sequence[str]) -> list[str]:
    """The argument vector of a command: a string goes through ``sh``, a sequence does not.

    Raises:
        TypeError: The command is neither.
        ValueError: It is empty, or holds what no command line can hold.
    """
    if isinstance(command, str):
        if not command.strip():
            raise ValueError("command is empty")
        parts = ["sh", "-c", command]
    elif isinstance(command, Sequence) and not isinstance(command, (bytes, bytearray, memoryview)):
        parts = list(command)
        for part in parts:
            if not isinstance(part, str):
                raise TypeError(f"command holds a {type(part).__name__}; all parts are strings")
        if not parts or not parts[0]:
            raise ValueError("command is empty")
    else:
        raise TypeError(f"command is a string or a sequence of them, not {type(command).__name__}")
    for part in parts:
        if "\0" in part:
            raise ValueError("command holds a NUL character")
        check_text(part, "command")
    return parts


def check_text(text: str, what: str) -> None:
    """Refuse text that has no UTF-8 form (lone surrogates)."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"{what} cannot be encoded as UTF-8: {error.reason}") from None


def duration(seconds: float) -> str:
    """A time-out as the server reads it: ``30`` → ``"30s"``, ``0.5`` → ``"0.5s"``.

    Raises:
        TypeError: Not a number.
        ConfigurationError: Not a finite number above zero.
    """
    require_seconds(seconds, "timeout")
    if isinstance(seconds, int):
        return f"{seconds}s"
    # Python would write 1e-05, which the server's format does not know.
    text = f"{seconds:.9f}".rstrip("0").rstrip(".")
    return f"{text}s" if float(text) > 0 else "0.000000001s"


def _common_prefix(left: str, right: str) -> str:
    for index, (a, b) in enumerate(zip(left, right, strict=False)):
        if a != b:
            return left[:index]
    return left[: min(len(left), len(right))]
