"""Search: spaces, studies, Pareto fronts."""

from connsearch.search.config import StudyConfig
from connsearch.search.pareto import ParetoFront
from connsearch.search.space import Member, SearchSpace
from connsearch.search.study import Progress, Study

__all__ = ["Member", "ParetoFront", "Progress", "SearchSpace", "Study", "StudyConfig"]
