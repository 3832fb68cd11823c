from __future__ import annotations

import math
from typing import Any

import pytest

from agentcube import UnsupportedLanguageError, _code
from agentcube.exceptions import ConfigurationError


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("x = 1", "x = 1"),
        ("\n    x = 1\n    y = 2\n    ", "\nx = 1\ny = 2\n"),
        ("    if x:\n        y\n", "if x:\n    y\n"),
        ("\tx\n\ty", "x\ny"),
        ("    x\n\ty", "    x\n\ty"),  # tabs and blanks share nothing
        ("  \tx\n  y", "\tx\ny"),
        ("    x\n\n    y", "x\n\ny"),
        ("    x\n  \n    y", "x\n\ny"),
        ("    x\r\n\r\n    y\r\n", "x\r\n\r\ny\r\n"),
        # No margin: not a byte changes, blanks in string literals included.
        ("s = '''\n   \n'''", "s = '''\n   \n'''"),
        ("    s = '''\ntext\n    '''", "    s = '''\ntext\n    '''"),
        # Only newlines end lines.
        ("    s = 'a\x0c b\u2028 c'\n    t", "s = 'a\x0c b\u2028 c'\nt"),
        ("    cat <<END\n    text\n    END\n", "cat <<END\ntext\nEND\n"),
        ("", ""),
        ("   \n  ", "   \n  "),
    ],
)
def test_dedent(code: str, expected: str) -> None:
    assert _code.dedent(code) == expected


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (30, "30s"),
        (30.0, "30s"),
        (0.5, "0.5s"),
        (1e-05, "0.00001s"),
        (1e-12, "0.000000001s"),
        (86400, "86400s"),
        (1.25, "1.25s"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert _code.duration(seconds) == text


@pytest.mark.parametrize("seconds", [0, -1, math.inf, math.nan])
def test_duration_out_of_range(seconds: float) -> None:
    with pytest.raises(ConfigurationError, match="timeout"):
        _code.duration(seconds)


@pytest.mark.parametrize("seconds", ["30", None, True, [1]])
def test_duration_of_wrong_type(seconds: Any) -> None:
    with pytest.raises(TypeError, match="timeout"):
        _code.duration(seconds)


def test_a_string_is_for_the_shell_and_a_list_is_not() -> None:
    assert _code.argv("a && b") == ["sh", "-c", "a && b"]
    assert _code.argv(["a", "&&", "b"]) == ["a", "&&", "b"]
    assert _code.argv(("true",)) == ["true"]


@pytest.mark.parametrize("command", ["", "  \n", [], [""], ["a\0"], "a\0", "\ud800", ["\ud800"]])
def test_malformed_commands(command: Any) -> None:
    with pytest.raises(ValueError, match="command"):
        _code.argv(command)


@pytest.mark.parametrize("command", [b"true", None, 7, [b"true"], ["a", 1], {"a"}, bytearray(b"a")])
def test_commands_of_wrong_type(command: Any) -> None:
    with pytest.raises(TypeError, match="command"):
        _code.argv(command)


@pytest.mark.parametrize(
    ("name", "interpreter"),
    [
        ("python", "python3"),
        ("Python3", "python3"),
        ("py", "python3"),
        ("bash", "bash"),
        ("sh", "sh"),
    ],
)
def test_languages(name: str, interpreter: str) -> None:
    assert _code.language(name).interpreter == interpreter


def test_an_unknown_language_names_those_known() -> None:
    with pytest.raises(
        UnsupportedLanguageError, match="'perl' is not one of: python, python3, py, "
    ):
        _code.language("perl")
    with pytest.raises(ValueError, match="perl"):
        _code.language("perl")


def test_script_names_do_not_repeat() -> None:
    lang = _code.language("python")
    names = {_code.script_name(lang) for _ in range(1000)}
    assert len(names) == 1000
    assert all(name.endswith(".py") for name in names)
