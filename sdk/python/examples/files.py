"""A local table goes in, a summary made with pandas comes out."""

import csv
import tempfile
from pathlib import Path

from agentcube import CodeInterpreterClient

SCRIPT = """
    import pandas as pd

    table = pd.read_csv("/workspace/data.csv")
    table.describe().to_csv("/workspace/summary.csv")
"""


def main() -> None:
    """Make the table, have it summed up, and print the summary."""
    with tempfile.TemporaryDirectory() as folder:
        data, summary = Path(folder, "data.csv"), Path(folder, "summary.csv")
        with data.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["day", "visitors"])
            writer.writerows((day, 100 + 7 * day) for day in range(1, 31))

        with CodeInterpreterClient() as client:
            client.upload_file(data, "/workspace/data.csv")
            client.run_code("python", SCRIPT)
            client.download_file("/workspace/summary.csv", summary)

        print(summary.read_text(), end="")


if __name__ == "__main__":
    main()
