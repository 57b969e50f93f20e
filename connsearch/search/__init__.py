"""Search: spaces, studies, Pareto fronts. Fronts need pandas, which is imported when one is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from connsearch._lazy import lazy
from connsearch.search.config import StudyConfig
from connsearch.search.space import Member, SearchSpace

if TYPE_CHECKING:
    from connsearch.search.hooks import Progress
    from connsearch.search.reading.pareto import ParetoFront
    from connsearch.search.study import Study

__all__ = ["Member", "ParetoFront", "Progress", "SearchSpace", "Study", "StudyConfig"]

__getattr__, __dir__ = lazy(
    __name__,
    {
        "ParetoFront": "connsearch.search.reading.pareto",
        "Progress": "connsearch.search.hooks",
        "Study": "connsearch.search.study",
    },
)
