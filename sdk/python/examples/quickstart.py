"""A shell command and some Python, in a sandbox that is gone afterwards."""

from agentcube import CodeInterpreterClient


def main() -> None:
    """Run both and print what they wrote."""
    with CodeInterpreterClient() as client:
        print("whoami:", client.execute_command("whoami").strip())

        output = client.run_code(
            "python",
            """
            import math

            print(f"Pi is approximately {math.pi:.4f}")
            """,
        )
        print(output.strip())


if __name__ == "__main__":
    main()
