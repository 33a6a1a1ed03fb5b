"""`width_gmn`: message passing that transfers to networks of other widths."""

from collections.abc import Mapping
from typing import ClassVar

from torch import nn

from metanet.contract import InputSpec, Options, Training, seeded
from metanet.inputs.checks import width_difference
from metanet.inputs.normalize import ParamsNorm
from metanet.layers.message_passing import GraphNetwork
from metanet.layers.widths import WidthGraph, fan_in
from metanet.models.graph_model import MessagePassing


class WidthGraphMetanet(MessagePassing):
    """A graph metanet that cannot see how often a neuron is copied.

    No parameter depends on a width. Copying every neuron of a group k times and dividing what reads
    the group by k leaves a network's function as it is, and this metanet's prediction too. Weights
    are read as weight times fan-in, on the scale of the training networks. Invariant to declared
    permutations; neurons of a fixed group, and hence its size, are known one by one. Fixed entries
    read as zero.

    References:
        Ma, Dayan, Eitan, Maron and Villar 2026, "Transferable Graph Metanetworks"
        (duplication-compatible GMN: fan-in rescaling, mean aggregation, mean readout of each
        layer); Lim et al. 2024, arXiv 2312.04501.
    """

    recommended = Training(epochs=30, batch_size=32, lr=3e-3, weight_decay=0.01, patience=8)
    invariant = "permutations"
    presets: ClassVar[Mapping[str, Options]] = {
        "published": {"width": 128, "edge_width": 128, "layers": 4}
    }
    transfers = True

    @staticmethod
    def norm_of(spec: InputSpec) -> ParamsNorm:
        """Normalization of weights times fan-in."""
        return ParamsNorm(spec, fan_in(spec.space))

    @staticmethod
    def parts(spec: InputSpec) -> tuple[type[nn.Module], type[nn.Module]]:
        """What does not see how often a neuron is copied."""
        del spec
        return GraphNetwork, WidthGraph

    def transfer(self, spec: InputSpec) -> "WidthGraphMetanet":
        """The same metanet for networks of other widths.

        Args:
            spec: A weight space with the same patterns and the same fixed groups; permutable
                groups may have other sizes.

        Returns:
            A module that shares what was learned: all weights, and the normalization.

        Raises:
            ValueError: If patterns or fixed groups differ; names them.
        """
        if difference := width_difference(self.spec.space, spec.space):
            raise ValueError(
                f"width_gmn transfers to other sizes of permutable groups only: {difference}"
            )
        with seeded(0):
            other = WidthGraphMetanet(spec, **self.options)
        other.to(self.norm.center).train(self.training)
        other.network = self.network
        other.norm.center, other.norm.scale = self.norm.center, self.norm.scale
        return other
