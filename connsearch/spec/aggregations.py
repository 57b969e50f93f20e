"""Aggregations: how the outputs that a layer reads become its one input, as torch-free rules.

A rule says which sources it takes and what it owns; `connsearch.nn.aggregations` holds the module of
the same name. A layer with a single source reads it as it is, unless a rule says that it applies to one.

Shapes: n sources of C channels and H x W pixels, oldest first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, TypeVar

from connsearch.errors import SpecError, did_you_mean
from connsearch.registry import Ref, Registry, entry_cache
from connsearch.spec.ops import Act, Chain, GlobalPool, Linear, Softmax


class Owned(NamedTuple):
    """What an aggregation, or one of its edges, owns and does for one image.

    Attributes:
        params: Trainable scalars.
        conv_macs: Multiply-accumulates in convolutions.
        source_macs: Multiply-accumulates of weighted sources: one for each source element.
        adds: Elements written by plain addition.
    """

    params: int = 0
    conv_macs: int = 0
    source_macs: int = 0
    adds: int = 0


class Footprint(NamedTuple):
    """Memory of an aggregation in units of its output map, and what backward needs.

    Attributes:
        temporaries: Maps alive beside sources and output when most are.
        saved: Maps kept for backward beside sources and output.
        saves_sources: Whether the sources themselves are kept.
    """

    temporaries: int = 0
    saved: int = 0
    saves_sources: bool = False


class Aggregation:
    """A rule. Parameters are dataclass fields with defaults.

    Subclass, decorate with `register_aggregation` and `dataclass(frozen=True, kw_only=True)`, and give
    the module of the same name with `connsearch.nn.implement_aggregation`.
    """

    equal_channels: ClassVar[bool] = True
    adds: ClassVar[bool] = False  # whether it is the plain sum or mean, so that sources can be dropped
    ordered: ClassVar[bool] = False  # whether the order of the sources matters to what it computes
    routes: ClassVar[bool] = False  # whether each source needs gates, one for each reader of this kind

    def applies(self, n: int) -> bool:
        """Return whether it applies to n sources; what it does not apply to is read as it is."""
        return n > 1

    def out_channels(self, channels: Sequence[int]) -> int:
        """Return the channels of the one input."""
        return channels[0]

    def node(self, n: int, channels: int, pixels: int) -> Owned:
        """Return what the aggregation owns apart from its edges; `channels` are its output's."""
        return Owned()

    def first_edge(self, channels: int, pixels: int) -> Owned:
        """Return what the edge from the oldest source owns."""
        return self.edge(channels, pixels)

    def edge(self, channels: int, pixels: int) -> Owned:
        """Return what the edge from any later source owns; `channels` are the source's."""
        return Owned()

    def footprint(self, n: int) -> Footprint:
        """Return the memory of the reference module for n sources that it applies to."""
        return Footprint()

    def gated_by(self, source: int, reads: Sequence[int]) -> int:
        """Return which node makes the gate of a source that reads `reads`; only asked if `routes`."""
        return source

    def gates(self, channels: int, n_readers: int) -> Chain:
        """Return the operations from a node's output to its gates; only asked if `routes`."""
        return ()


AGGREGATIONS: Registry[Callable[..., Aggregation]] = Registry("aggregation")

A = TypeVar("A", bound=type[Aggregation])


def register_aggregation(name: str) -> Callable[[A], A]:
    """Register a subclass of `Aggregation` under a name.

    Raises:
        SpecError: if the name is taken.
    """

    def add(rule: A) -> A:
        AGGREGATIONS.register(name)(rule)
        return rule

    return add


def list_aggregations() -> list[str]:
    """Return the names of all registered aggregations.

    >>> list_aggregations()
    ['concat', 'depthwise', 'gated', 'mean', 'routed', 'sum', 'weighted']
    """
    return sorted(AGGREGATIONS)


def aggregation_rule(ref: Ref) -> Aggregation:
    """Return the rule of a reference.

    Raises:
        SpecError: if a parameter has a value that the rule does not take.
    """
    params: dict[str, Any] = AGGREGATIONS.bind(ref)
    return AGGREGATIONS[ref.name](**params)


rule_of = entry_cache(aggregation_rule)


@register_aggregation("sum")
@dataclass(frozen=True, kw_only=True)
class Sum(Aggregation):
    """x = sum_i h_i: ResNet-v2 when all earlier outputs are read."""

    adds: ClassVar[bool] = True

    def node(self, n: int, channels: int, pixels: int) -> Owned:
        """One running addition for each output element, as residual networks do it."""
        return Owned(adds=channels * pixels)


@register_aggregation("mean")
@dataclass(frozen=True, kw_only=True)
class Mean(Sum):
    """x = 1/n sum_i h_i."""


@register_aggregation("concat")
@dataclass(frozen=True, kw_only=True)
class Concat(Aggregation):
    """x = [h_1, ..., h_n] along the channels: DenseNet, SparseNet, Log-DenseNet."""

    equal_channels: ClassVar[bool] = False

    def out_channels(self, channels: Sequence[int]) -> int:
        """Return the sum of the sources' channels."""
        total = channels[0]
        for more in channels[1:]:
            total = total + more
        return total


@register_aggregation("weighted")
@dataclass(frozen=True, kw_only=True)
class Weighted(Aggregation):
    """x = sum_i a(w_i) h_i: one learned scalar for each source.

    activation = none, a(w) = w: DenseFormer's depth-weighted average (Pagliardini et al., arXiv
    2402.02622, and the authors' code: 1 on the newest source and 0 on the others at first). activation =
    sigmoid: the edges of randomly wired networks (Xie et al., arXiv 1904.01569; weights that start at 0).
    single = true: a single source is weighted too.
    """

    ordered: ClassVar[bool] = True  # the newest source starts with a weight of its own
    activation: str = "none"
    newest: float = 1.0  # initial w of the newest source
    older: float = 0.0  # initial w of all others
    single: bool = False

    def __post_init__(self) -> None:
        if self.activation not in ("none", "sigmoid"):
            known = did_you_mean(self.activation, ("none", "sigmoid"))
            raise SpecError(f"aggregation 'weighted': unknown activation {self.activation!r}. {known}")

    def applies(self, n: int) -> bool:
        """Return whether there are several sources, or a single one is to be weighted."""
        return n > 1 or (n == 1 and self.single)

    def edge(self, channels: int, pixels: int) -> Owned:
        """One weight, and one multiply-accumulate for each element."""
        return Owned(params=1, source_macs=channels * pixels)

    def footprint(self, n: int) -> Footprint:
        """All sources are kept for the gradient of the weights."""
        return Footprint(saves_sources=True)


@register_aggregation("depthwise")
@dataclass(frozen=True, kw_only=True)
class Depthwise(Aggregation):
    """DelugeNet's cross-layer depthwise convolution: one weight for each source and channel.

    form = normalized: x[c] = sum_i (g[i, c] BN_i(h_i)[c] + b[i, c]), with 2 n C parameters; the authors'
    code, and what their published figures come from. form = paper: x[c] = sum_i w[i, c] h_i[c] + b[c],
    with (n + 1) C parameters; equation 1 of arXiv 1611.05552. single = true: a single source is weighted
    too, as where the others were pruned.
    """

    form: str = "normalized"
    single: bool = False

    def __post_init__(self) -> None:
        if self.form not in ("normalized", "paper"):
            known = did_you_mean(self.form, ("normalized", "paper"))
            raise SpecError(f"aggregation 'depthwise': unknown form {self.form!r}. {known}")

    def applies(self, n: int) -> bool:
        """Return whether there are several sources, or a single one is to be weighted."""
        return n > 1 or (n == 1 and self.single)

    def node(self, n: int, channels: int, pixels: int) -> Owned:
        """The paper's form has one bias for each channel."""
        return Owned(params=channels) if self.form == "paper" else Owned()

    def edge(self, channels: int, pixels: int) -> Owned:
        """A weight, and in the normalized form a bias, for each channel."""
        return Owned(params=channels if self.form == "paper" else 2 * channels, source_macs=channels * pixels)

    def footprint(self, n: int) -> Footprint:
        """One normalised source at a time; all sources are kept for the gradient of the weights."""
        return Footprint(temporaries=int(self.form == "normalized" and n > 1), saves_sources=True)


@register_aggregation("gated")
@dataclass(frozen=True, kw_only=True)
class Gated(Aggregation):
    """Highway gates, folded over the sources: x_1 = h_1, x_i = x_{i-1} + T_i (h_i - x_{i-1}).

    T_i = sigmoid(W_i x_{i-1} + b_i) with a 1x1 convolution W_i; with two sources this is
    T h_2 + (1 - T) h_1, the highway layer (Srivastava et al., arXiv 1505.00387).
    """

    ordered: ClassVar[bool] = True
    bias: float = -1.0  # initial bias of the gates: negative carries the older sources

    def first_edge(self, channels: int, pixels: int) -> Owned:
        """The oldest source needs no gate."""
        return Owned()

    def edge(self, channels: int, pixels: int) -> Owned:
        """A 1x1 convolution with bias, and one multiply-accumulate for each element."""
        weights = channels * channels
        return Owned(weights + channels, weights * pixels, channels * pixels)

    def footprint(self, n: int) -> Footprint:
        """Gates and running states are kept."""
        return Footprint(temporaries=min(n, 3) - 1, saved=2 * n - 3, saves_sources=True)


@register_aggregation("routed")
@dataclass(frozen=True, kw_only=True)
class Routed(Aggregation):
    """x_j = sum_i g_ij h_i with gates from features: what a node gives out is distributed over its readers.

    g_i = softmax_j(W2 ReLU(W1 mean(z_i) + b1) + b2). gates_of = source: z_i is the source h_i, and j runs
    over its routed readers (cross-connections). gates_of = parent: z_i is the one node that the source
    reads, and j runs over the routed readers of all that read z_i, so that x_j = sum_i g_ij U_ij with
    U_ij made of z_i (cross-prediction). single = true: a single source is weighted too, as when one tensor
    is distributed over several paths. A node with one such reader gives it everything, without a gate.
    (Tissera et al., arXiv 2006.13904 and 2107.02450; equations recalled, not confirmed.)
    """

    hidden: int = 16
    gates_of: str = "source"
    single: bool = False
    routes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.hidden < 1:
            raise SpecError(f"aggregation 'routed': hidden must be at least 1, got {self.hidden}")
        if self.gates_of not in ("source", "parent"):
            known = did_you_mean(self.gates_of, ("source", "parent"))
            raise SpecError(f"aggregation 'routed': unknown gates_of {self.gates_of!r}. {known}")

    def applies(self, n: int) -> bool:
        """Return whether there are several sources, or a single one is to be weighted."""
        return n > 1 or (n == 1 and self.single)

    def gated_by(self, source: int, reads: Sequence[int]) -> int:
        """Return the source, or the one node that it reads."""
        if self.gates_of == "source":
            return source
        if len(reads) != 1:
            raise SpecError(
                f"routed(gates_of=parent) needs sources that read one node each, got one that reads "
                f"{len(reads)}: use gates_of=source"
            )
        return reads[0]

    def edge(self, channels: int, pixels: int) -> Owned:
        """One multiply-accumulate for each element; the gates belong to the node whose output makes them."""
        return Owned(source_macs=channels * pixels)

    def footprint(self, n: int) -> Footprint:
        """All gated sources are kept for the gradient of the gates."""
        return Footprint(saves_sources=True)

    def gates(self, channels: int, n_readers: int) -> Chain:
        """Mean over pixels - linear - ReLU - linear - softmax over the readers."""
        return (
            GlobalPool(),
            Linear(channels, self.hidden),
            Act("relu"),
            Linear(self.hidden, n_readers),
            Softmax(),
        )
