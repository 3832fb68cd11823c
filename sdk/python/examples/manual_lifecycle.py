"""A session that lives as long as the program wants, for an hour at most."""

from agentcube import CodeInterpreterClient


def main() -> None:
    """Begin a session, keep state in it between calls, and end it."""
    client = CodeInterpreterClient(ttl=3600)
    try:
        print(client.execute_command("echo 'Session started'"), end="")
        client.write_file("kept between calls\n", "note.txt")
        print(client.execute_command("cat note.txt"), end="")
    finally:
        client.stop()
    print("Session stopped")


if __name__ == "__main__":
    main()
