"""Two calls to an agent that remembers the first, and an answer that comes word by word."""

from agentcube import AgentRuntimeClient


def main() -> None:
    """Talk to the agent of agent.yaml, and end its session."""
    client = AgentRuntimeClient("my-agent")
    try:
        print(client.invoke({"prompt": "Hello"}))
        print(client.invoke({"prompt": "Do you remember?"}))
        with client.stream({"prompt": "three little words"}, path="chat") as answer:
            for line in answer.lines():
                if line:
                    print(line.removeprefix("data: "))
    finally:
        client.stop()


if __name__ == "__main__":
    main()
