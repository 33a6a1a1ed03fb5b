"""How a metanet reads several populations: a reader for each weight space, and one made on the fly for a new one."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from metanet.contract import Features, Networks, InputSpec, concatenate, rows
from metanet.inputs.batches import NetworkSet, as_set
from metanet.inputs.dataset import Examples
from metanet.inputs.reader import Reader
from metanet.inputs.treatments import Treatment


class Chosen(NamedTuple):
    """Some networks of several populations.

    Attributes:
        networks: Those of each population, None where there are none.
        order: For each network, its place when the populations are laid one after the other.
    """

    networks: tuple[Networks | None, ...]
    order: Tensor


@dataclass(frozen=True)
class JoinedSets:
    """Networks of several populations as one set; a `NetworkSet`.

    Attributes:
        parts: Of each population.
    """

    parts: tuple[NetworkSet, ...]

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def stream(self, parts: Sequence[Int64[Tensor, "_"]], workers: int = 0) -> Iterator[Chosen]:
        """Networks of each group of rows, counted over all populations; see `NetworkSet`."""
        ordered, start, own = [index.sort().values for index in parts], 0, []
        for part in self.parts:
            inside = [
                index[(index >= start) & (index < start + len(part))] - start for index in ordered
            ]
            own.append((inside, part.stream([index for index in inside if len(index)], workers)))
            start += len(part)
        for at, index in enumerate(parts):
            networks = tuple(next(found) if len(inside[at]) else None for inside, found in own)
            yield Chosen(networks, index.argsort().argsort())


@dataclass(frozen=True)
class Joined:
    """Networks of several populations and their targets; `Examples` for one.

    Attributes:
        networks: What the metanet reads, population by population.
        y: Targets of all of them ``[N]``.
        num_dropped: Diverged networks that were left out.
    """

    networks: JoinedSets
    y: Float[Tensor, "N"]
    num_dropped: int

    def __len__(self) -> int:
        return len(self.y)


def join(parts: Sequence[Examples]) -> Joined:
    """Examples of several populations, one after the other.

    Args:
        parts: Of each population.

    Returns:
        The examples.
    """
    networks, dropped = (
        tuple(as_set(part.networks) for part in parts),
        sum(part.num_dropped for part in parts),
    )
    return Joined(JoinedSets(networks), torch.cat([part.y for part in parts]), dropped)


@dataclass(frozen=True)
class MixedReader:
    """What stands between the networks of several populations and a metanet; `Reader` for one.

    Attributes:
        readers: A reader for each fitted population.
    """

    readers: tuple[Reader, ...]

    @property
    def specs(self) -> tuple[InputSpec, ...]:
        """The fitted weight spaces."""
        return tuple(reader.spec for reader in self.readers)

    @property
    def module(self) -> nn.Module:
        """The metanet."""
        return self.readers[0].module

    @property
    def treatment(self) -> Treatment:
        """The treatment of all of them."""
        return self.readers[0].treatment

    @property
    def num_params(self) -> int:
        """Scalars of the largest network."""
        return max(reader.num_params for reader in self.readers)

    def fit(self, networks: JoinedSets) -> "MixedReader":
        """Check that no step of the treatment learns something of a weight space: a new one would lack it.

        Args:
            networks: Training networks of each population.

        Returns:
            Itself.

        Raises:
            ValueError: If a step learns.
        """
        fitted = [reader.fit(own) for reader, own in zip(self.readers, networks.parts, strict=True)]
        learned = [
            type(step).__name__.lower()
            for reader in fitted
            for step in reader.treatment.steps
            if hasattr(step, "fit")
        ]
        if learned:
            raise ValueError(
                f"treatment {learned[0]!r} learns from networks of one weight space: expected treatments that learn nothing "
                "for several populations, such as 'augment' or 'canonicalize'"
            )
        return MixedReader(tuple(fitted))

    def learned(self, generator: torch.Generator) -> Callable[[Chosen], Features]:
        """How training networks are seen, as `Reader.learned`."""
        computes = [reader.learned(generator) for reader in self.readers]

        def compute(chosen: Chosen) -> Features:
            found = zip(computes, chosen.networks, strict=True)
            return rows(
                concatenate([own(networks) for own, networks in found if networks is not None]),
                chosen.order,
            )

        return compute

    def views(self, chosen: Chosen) -> list[Features]:
        """Features of networks to predict, as `Reader.views`."""
        found = zip(self.readers, chosen.networks, strict=True)
        views = [reader.views(networks) for reader, networks in found if networks is not None]
        return [rows(concatenate(same), chosen.order) for same in zip(*views, strict=True)]

    def reader_of(self, inputs: Any) -> Reader:
        """The reader of networks of one weight space.

        Args:
            inputs: A population of any weight space whose kinds are known; or params of a fitted
                space.

        Returns:
            The reader.

        Raises:
            ValueError: If the networks cannot be read.
        """
        if not isinstance(inputs, Mapping):
            spec = InputSpec(
                inputs.space, {name: mask.bool().cpu() for name, mask in inputs.free.items()}
            )
            try:
                self.module.admit(spec)  # type: ignore[operator]
            except ValueError as error:
                raise ValueError(f"population {inputs.name!r}: {error}") from error
            return replace(self.readers[0], spec=spec)
        shapes = {name: tuple(tensor.shape[1:]) for name, tensor in inputs.items()}
        fitting = [reader for reader in self.readers if dict(reader.spec.space.shapes) == shapes]
        if len(fitting) != 1:
            raise ValueError(
                f"params fit {len(fitting)} of the weight spaces that the metanet was fitted on, expected 1: got tensors "
                f"{shapes}; give a population, whose weight space is known"
            )
        return fitting[0]
