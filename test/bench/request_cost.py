"""What the security of execute_command("true") costs: run it beside `agentcube up`.

Commands of one session in TLS and of another in plain text, and the signature of one request and
its checks, are measured in turns. Prints medians in milliseconds, and the two ratios that count.
"""

import statistics
import time
from collections.abc import Callable

import jwt

from agentcube import CodeInterpreterClient
from agentcube._auth import SessionKey, request_claims

SAMPLES = 200


def timed(do: Callable[[], object]) -> float:
    began = time.perf_counter()
    do()
    return (time.perf_counter() - began) * 1000


def main() -> None:
    key = SessionKey()
    public = key.private_key().public_key()

    def sign() -> str:
        return key.sign(request_claims("0" * 36, "POST", "/api/execute", "0" * 64))

    series: dict[str, list[float]] = {"encrypted": [], "plain": [], "sign": [], "check": []}
    with CodeInterpreterClient() as encrypted, CodeInterpreterClient(encrypt=False) as plain:
        work = {
            "encrypted": lambda: encrypted.execute_command("true"),
            "plain": lambda: plain.execute_command("true"),
            "sign": sign,
            "check": lambda: jwt.decode(sign_once, public, algorithms=["RS256"]),
        }
        sign_once = sign()
        for do in work.values():
            do()
        for _ in range(SAMPLES):
            for name, do in work.items():
                series[name].append(timed(do))
    median = {name: statistics.median(values) for name, values in series.items()}
    print(", ".join(f"{name} {value:.2f} ms" for name, value in median.items()))
    print(f"TLS / plain text: {median['encrypted'] / median['plain']:.2f}")
    # The Router checks a request in plain text, and PicoD every one.
    cost = median["sign"] + 2 * median["check"]
    print(f"signing and checking / command in plain text: {cost / median['plain']:.3f}")


if __name__ == "__main__":
    main()
