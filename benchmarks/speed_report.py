"""Print the figures of speed as Markdown, or write them where README.md and its picture have them.

    python benchmarks/speed_report.py            # prints the tables
    python benchmarks/speed_report.py --write    # into README.md, and draws docs/pictures/speed.png

Of each case the latest run counts that has five repeats or more.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from plot import draw_speed
from speed_records import Run, latest_runs
from speed_tables import evaluation, kernels, promises, training

from connsearch.errors import ConnsearchError, SpecError
from connsearch.files import write_whole
from connsearch.plots.style import save

README = Path(__file__).parent / "README.md"
PICTURE = Path(__file__).parents[1] / "docs" / "pictures" / "speed.png"


def tables(of_kernels: Sequence[Run], of_networks: Sequence[Run]) -> dict[str, str]:
    """Return the tables of Markdown by the names that README.md marks them with."""
    return {
        "kernels": kernels(of_kernels),
        "training": training(of_networks),
        "promises": promises(of_networks),
        "evaluation": evaluation(of_networks),
    }


def rewritten(page: str, found: Mapping[str, str]) -> str:
    """Return a page with its marked tables replaced.

    Raises:
        SpecError: if the page has not exactly one place for each.
    """
    for name, table in found.items():
        begin, end = f"<!-- {name} -->\n", f"\n<!-- end of {name} -->"
        if page.count(begin) != 1 or page.count(end) != 1 or page.index(begin) > page.index(end):
            raise SpecError(
                f"no place for the table {name!r}: it goes between {begin.strip()} and {end.strip()}"
            )
        page = page[: page.index(begin) + len(begin)] + f"\n{table}\n" + page[page.index(end) :]
    return page


def main() -> None:
    """Print the tables, or write them and the picture."""
    parser = argparse.ArgumentParser(description="Print the figures of speed as Markdown.")
    parser.add_argument("--write", action="store_true", help=f"into {README.name}, and draw {PICTURE.name}")
    write = parser.parse_args().write
    found = latest_runs()
    if not write:
        print("\n\n".join(tables(*found).values()))
        return
    try:
        figure = draw_speed(*found)
        page = rewritten(README.read_text(encoding="utf-8"), tables(*found))
        for path in (write_whole(README, page.encode()), save(figure, PICTURE)):
            print(f"wrote {path}")
    except ConnsearchError as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
