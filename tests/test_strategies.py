"""What hypothesis draws is valid, whatever is drawn."""

from __future__ import annotations

from connsearch.registry import Ref
from connsearch.spec import NetworkSpec, resolve
from strategies import dropping


def test_a_drop_is_left_out_where_it_finds_nothing() -> None:
    """The only node that adds reads two carries: stochastic depth drops what units give out."""
    blocks = [{"aggregation": "concat", "n_layers": 2}, {"aggregation": "sum", "n_layers": 1}]
    spec = NetworkSpec(scope="global", blocks=[{"topology": "random_dag", **block} for block in blocks])
    assert [plan.aggregation for plan in resolve(spec).nodes if plan.sources[1:]] == [Ref("sum")]
    assert dropping(spec, Ref("stochastic_depth")) == spec
    assert dropping(spec, Ref("swapout")).drop == Ref("swapout")
