from __future__ import annotations

import email.utils
import json
import pickle
import time
from typing import Any

import pytest

from agentcube import _requests, _responses, _settings, exceptions
from agentcube._results import CommandResult, FileInfo

SETTINGS = _settings.Settings(
    name="n",
    namespace="ns",
    ttl=1,
    workload_manager=_settings.parse_url("http://wm.example", "test"),
    router=_settings.parse_url("http://router.example", "test"),
    tokens=_settings.TokenSettings(),
    timeouts=_settings.Timeouts(),
    max_retries=0,
)
REQUEST = _requests.list_files(SETTINGS, "sid", ".")


def error(status: int, body: Any, headers: dict[str, str] | None = None) -> Any:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return _responses.status_error(REQUEST, status, headers or {}, raw)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (302, exceptions.APIStatusError),
        (400, exceptions.BadRequestError),
        (401, exceptions.AuthenticationError),
        (403, exceptions.PermissionDeniedError),
        (404, exceptions.NotFoundError),
        (409, exceptions.ConflictError),
        (410, exceptions.SessionEndedError),
        (413, exceptions.PayloadTooLargeError),
        (418, exceptions.APIStatusError),
        (429, exceptions.RateLimitError),
        (500, exceptions.InternalServerError),
        (502, exceptions.InternalServerError),
        (503, exceptions.InternalServerError),
        (504, exceptions.InternalServerError),
        (507, exceptions.DiskFullError),
    ],
)
def test_kinds(status: int, kind: type[exceptions.APIStatusError]) -> None:
    made = error(status, {"error": "text"})
    assert type(made) is kind
    assert made.status == status


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("SESSION_ENDED", exceptions.SessionEndedError),
        ("CHECKPOINT_UNUSABLE", exceptions.CheckpointUnusableError),
        ("ANOTHER_CODE", exceptions.APIStatusError),
    ],
)
def test_gone_is_not_always_a_session(code: str, kind: type[exceptions.APIStatusError]) -> None:
    made = error(410, {"error": "text", "code": code})
    assert type(made) is kind
    assert made.code == code


def test_the_shape_of_the_control_plane() -> None:
    made = error(
        404,
        {
            "error": "no such template",
            "message": "no such template",
            "code": "TEMPLATE_NOT_FOUND",
            "requestId": "r-1",
            "hint": "did you mean x?",
        },
    )
    assert (made.code, made.request_id) == ("TEMPLATE_NOT_FOUND", "r-1")
    for part in ("no such template", "did you mean x?", "TEMPLATE_NOT_FOUND", "r-1", "HTTP 404"):
        assert part in str(made)


def test_the_shape_of_the_agent() -> None:
    made = error(
        401,
        {
            "error": "Invalid token",
            "code": 401,
            "reason": "TOKEN_INVALID",
            "requestId": "r-2",
            "detail": "JWT verification failed: expired",
        },
    )
    assert (made.code, made.request_id) == ("TOKEN_INVALID", "r-2")
    assert "JWT verification failed: expired" in str(made)


def test_the_shapes_of_older_servers() -> None:
    made = error(400, {"error": "SANDBOX_BUILD_FAILED", "message": "not found"})
    assert "SANDBOX_BUILD_FAILED" in str(made)
    assert "code interpreter not found" in str(
        error(404, {"message": "code interpreter not found"})
    )
    made = error(413, {"error": "request body too large", "detail": "maximum is 1"})
    assert made.code is None


def test_the_request_id_of_the_header() -> None:
    assert error(500, b"", {"x-request-id": "r-3"}).request_id == "r-3"


@pytest.mark.parametrize(
    "body", [b"", b"404 page not found", b"<html>", b"[1]", b"\xff", b"{", b"[" * 9999]
)
def test_other_bodies(body: bytes) -> None:
    made = error(404, body)
    assert isinstance(made, exceptions.NotFoundError)
    assert ("page not found" in str(made)) == (body == b"404 page not found")


def test_a_long_body_is_cut() -> None:
    assert len(str(error(500, {"error": "x" * 100_000}))) < 3000


def test_the_fate() -> None:
    made = error(410, {"error": "the session has ended", "code": "SESSION_ENDED", "fate": "idle"})
    assert made.fate == "idle"
    assert "idle" in str(made)
    assert error(410, {"error": "gone"}).fate is None


def test_retry_after() -> None:
    assert error(429, {}, {"retry-after": "7"}).retry_after == 7
    assert error(429, {}).retry_after is None
    assert error(429, {}, {"retry-after": "soon"}).retry_after is None
    assert error(429, {}, {"retry-after": "-5"}).retry_after is None
    date = email.utils.formatdate(time.time() + 100, usegmt=True)
    assert 90 < error(429, {}, {"retry-after": date}).retry_after < 101
    assert error(429, {}, {"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}).retry_after == 0


def test_a_wrong_clock_is_named() -> None:
    date = email.utils.formatdate(time.time() + 3600, usegmt=True)
    assert "clock" in str(error(401, {"error": "Invalid token"}, {"date": date}))
    nearly = email.utils.formatdate(time.time() + 45, usegmt=True)
    assert "clock" not in str(error(401, {"error": "Invalid token"}, {"date": nearly}))
    assert "clock" not in str(error(403, {"error": "Invalid token"}, {"date": date}))
    now = email.utils.formatdate(usegmt=True)
    assert "clock" not in str(error(401, {"error": "Invalid token"}, {"date": now}))


@pytest.mark.parametrize(
    ("detail", "of_time"),
    [
        ("token has invalid claims: token is expired", True),
        ("Signature has expired", True),
        ("token is not valid yet", True),
        ("token used before issued", True),
        ("token was made before the agent began: sign the request again", True),
        ("used before the agent began", True),
        ("the clocks differ", True),
        ("token was used before", False),
        ("token is for another path", False),
        ("crypto/rsa: verification error", False),
    ],
)
@pytest.mark.parametrize("seconds", [-3600, -45, -20, 20, 45, 3600])
def test_clocks_are_named_where_the_server_speaks_of_time(
    detail: str, of_time: bool, seconds: int
) -> None:
    date = email.utils.formatdate(time.time() - seconds, usegmt=True)
    body = {"error": "Invalid token", "detail": f"JWT verification failed: {detail}"}
    text = str(error(401, body, {"date": date}))
    side = "ahead of" if seconds > 0 else "behind"
    expected = of_time and abs(seconds) > 30
    assert ("the clock of this machine is" in text) == expected
    assert (f"s {side} the server's" in text) == expected
    assert "the clock of this machine is" not in str(error(401, body))
    assert "the clock of this machine is" not in str(error(401, body, {"date": "today"}))


def test_a_redirect_is_named() -> None:
    assert "https://x.example/" in str(error(307, b"", {"location": "https://x.example/"}))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b'{"sessionId": ""}',
        b'{"sessionId": 3}',
        b'{"sessionId": "a b"}',
        b'{"sessionId": "a\\r\\nX: y"}',
        b'{"sessionId": null}',
        b"[" * 99999,
    ],
)
def test_malformed_create_answers(body: bytes) -> None:
    with pytest.raises(exceptions.InvalidResponseError):
        _responses.created(REQUEST, body)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"exit_code": "0", "stdout": "", "stderr": ""},
        {"exit_code": True, "stdout": "", "stderr": ""},
        {"exit_code": 0, "stdout": None, "stderr": ""},
        {"exit_code": 0, "stdout": ""},
    ],
)
def test_malformed_execute_answers(body: Any) -> None:
    with pytest.raises(exceptions.InvalidResponseError):
        _responses.command_result(REQUEST, json.dumps(body).encode())


@pytest.mark.parametrize(
    "body", [{}, {"files": {}}, {"files": ["a"]}, {"files": [{"name": "a", "size": 1}]}]
)
def test_malformed_list_answers(body: Any) -> None:
    with pytest.raises(exceptions.InvalidResponseError):
        _responses.file_list(REQUEST, json.dumps(body).encode())


def test_no_files_of_an_old_server() -> None:
    assert _responses.file_list(REQUEST, b'{"files": null}') == []


def test_a_cut_list_is_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    body = {"files": [{"name": "a", "size": 1, "is_dir": False}], "truncated": True}
    assert len(_responses.file_list(REQUEST, json.dumps(body).encode())) == 1
    assert "cut" in caplog.text


def test_results_are_dictionaries_with_names() -> None:
    result = CommandResult(
        exit_code=3,
        stdout="a\ufffd",
        stderr="",
        duration=0.5,
        stdout_base64="Yf8=",
        stdout_truncated=True,
    )
    assert (result.exit_code, result["exit_code"], result.get("exit_code")) == (3, 3, 3)
    assert result.stdout_raw == b"a\xff"
    assert result.stderr_raw == b""
    assert result.truncated
    assert result.duration == 0.5
    assert json.loads(json.dumps(result))["stdout"] == "a\ufffd"
    assert not CommandResult(exit_code=0, stdout="", stderr="").truncated
    assert CommandResult(exit_code=0, stdout="", stderr="").duration == 0


def test_why_a_command_was_not_started() -> None:
    result = CommandResult(exit_code=1, stdout="", stderr="no", start_error="not_found")
    assert result.start_error == "not_found"
    assert CommandResult(exit_code=1, stdout="", stderr="").start_error == ""


@pytest.mark.parametrize(
    ("code", "stderr", "timed_out"),
    [
        (124, "Command timed out after 1 seconds", True),
        (124, "partial\nCommand timed out after 2 seconds\n", True),
        (124, "", False),
        (124, "Command timed out after 1 seconds, said the program, and went on", False),
        (1, "Command timed out after 1 seconds", False),
    ],
)
def test_time_outs_are_told_from_exit_codes(code: int, stderr: str, timed_out: bool) -> None:
    assert CommandResult(exit_code=code, stdout="", stderr=stderr).timed_out is timed_out


def test_file_entries() -> None:
    entry = FileInfo(name="a", size=3, is_dir=False, mode="-rw-r--r--")
    assert (entry.name, entry.size, entry.is_dir, entry.mode) == ("a", 3, False, "-rw-r--r--")
    assert entry.modified is None
    for text, microsecond in (
        ("2026-01-02T03:04:05.123456789Z", 123456),
        ("2026-01-02T03:04:05.5+00:00", 500000),
        ("2026-01-02T03:04:05Z", 0),
    ):
        modified = FileInfo(modified=text).modified
        assert modified is not None
        assert modified.microsecond == microsecond
        assert modified.tzinfo is not None
    assert FileInfo(modified="yesterday").modified is None


def test_every_exception_survives_pickling() -> None:
    for name in exceptions.__all__:
        kind = getattr(exceptions, name)
        if issubclass(kind, exceptions.CommandExecutionError):
            made = kind(3, "err", ["a"], stdout="out", hint="h", request_id="r")
        else:
            made = kind("text", request_id="r", status=400, code="C")
        copy = pickle.loads(pickle.dumps(made))
        assert type(copy) is kind
        assert str(copy) == str(made)
        assert copy.__dict__ == made.__dict__


def test_the_tree_is_drawn_as_it_is() -> None:
    drawn = exceptions.__doc__ or ""
    for name in exceptions.__all__:
        kind = getattr(exceptions, name)
        assert issubclass(kind, exceptions.AgentCubeError)
        assert f"{name} " in drawn or f"{name}\n" in drawn


def test_the_message_of_a_failed_command() -> None:
    made = exceptions.CommandExecutionError(2, "x" * 5000 + "the end\n", "cmd")
    assert str(made).startswith("Command failed (exit 2): ...x")
    assert str(made).endswith("the end")
    assert len(made.stderr) == 5008
