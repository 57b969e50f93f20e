"""`python -m connsearch`: the command line, for what starts modules, such as torchrun."""

from __future__ import annotations

from connsearch.cli import run_app

if __name__ == "__main__":
    run_app()
