"""Weighted sums of which the first sources are summed ahead, for several at once.

These write maps that they are given, and are no operators of torch: whoever has them called where torch looks
on (`operators.is_watched`) uses `weighted_sum` or `weighted_sum_norm_act`.
"""

from connsearch.kernels.dispatch import chosen
from connsearch.kernels.sums_ahead import reference

__all__ = ["begin_sums", "finish_sum", "finish_sum_norm_act"]

begin_sums = chosen(reference.begin_sums)
finish_sum = chosen(reference.finish_sum)
finish_sum_norm_act = chosen(reference.finish_sum_norm_act)
