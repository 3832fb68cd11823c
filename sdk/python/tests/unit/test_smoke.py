from agentcube import CodeInterpreterClient


def test_all(client: CodeInterpreterClient) -> None:
    with client:
        assert client.execute_command("echo 'Session started'") == "Session started\n"
        out = client.run_code(
            "python",
            """
            import math
            print(f"Pi is approximately {math.pi:.4f}")
            """,
        )
        assert out == "Pi is approximately 3.1416\n"
        assert client.list_files() == []
