"""An agent in a real sandbox: the one of examples/agent.yaml, which the server has."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from agentcube import AgentRuntimeClient, APIStatusError, NotFoundError, SessionEndedError

MakeAgent = Callable[..., AgentRuntimeClient]
Pause = Callable[[AgentRuntimeClient], None]


@pytest.fixture
def make() -> Iterator[MakeAgent]:
    made: list[AgentRuntimeClient] = []

    def make(name: str = "my-agent", session_id: str | None = None) -> AgentRuntimeClient:
        client = AgentRuntimeClient(name, session_id=session_id)
        made.append(client)
        return client

    yield make
    for client in made:
        client.stop()


def test_two_sessions_and_one_that_goes_on(make: MakeAgent, pause: Pause) -> None:
    one, two = make(), make()
    assert one.invoke({"prompt": "x"}) == {"answer": "You said: x", "heard": 1}
    assert one.invoke({"prompt": "x"})["heard"] == 2
    assert two.invoke({"prompt": "x"})["heard"] == 1
    one.close()
    again = make(session_id=one.session_id)
    pause(again)
    assert again.invoke({"prompt": "x"})["heard"] == 3


def test_an_answer_that_comes_word_by_word(make: MakeAgent) -> None:
    with make().stream({"prompt": "one two"}, path="chat") as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        assert list(answer.lines()) == ["data: one", "", "data: two", ""]


def test_failures(make: MakeAgent) -> None:
    client = make()
    with pytest.raises(APIStatusError) as refused:
        client.invoke(None, method="PUT")
    assert (refused.value.status, refused.value.code) == (501, None)
    make(session_id=client.session_id).stop()
    with pytest.raises(SessionEndedError) as ended:
        client.invoke({"prompt": "x"})
    assert ended.value.fate == "deleted"
    with pytest.raises(NotFoundError, match="no-such-agent") as missing:
        make("no-such-agent").start()
    assert missing.value.code == "TEMPLATE_NOT_FOUND"
