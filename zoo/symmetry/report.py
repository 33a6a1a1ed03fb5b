"""What symmetries networks have, group by group; `zoo.symmetry.residual` measures it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from zoo.weight_space import NeuronGroup

KINDS: tuple[str, ...] = ("permutation", "sign", "scale")


@dataclass(frozen=True, eq=False)
class SymmetryReport:
    """What symmetries networks have, group by group, declared or not; `print` it for a table.

    Attributes:
        groups: The groups that were tested, as the space declares them.
        scale: For a group `[*batch, size]`, `|<grad L, xi_j>| / (|grad_j L| |xi_j|)` for each
            neuron `j`.
        sign: For a group `[*batch, size]`, the largest change of the outputs, over the largest
            output, if neuron `j` changes its sign.
        permutation: For a group `[*batch]`, the same for the worst of the sampled permutations.
        tolerance: Below it a symmetry counts as found.
    """

    groups: Mapping[str, NeuronGroup]
    scale: Mapping[str, Float[Tensor, "*batch _"]]
    sign: Mapping[str, Float[Tensor, "*batch _"]]
    permutation: Mapping[str, Float[Tensor, "*batch"]]
    tolerance: float

    def worst(self, group: str, kind: str) -> float:
        """The largest residual of one of `KINDS`, over all networks and neurons of a group."""
        residuals = {"permutation": self.permutation, "sign": self.sign, "scale": self.scale}
        values = residuals[kind][group].nan_to_num(nan=math.inf, posinf=math.inf)
        return float(values.max())

    def declared(self, group: str) -> tuple[str, ...]:
        """Kinds of symmetry that the space declares for a group."""
        declared = self.groups[group]
        flags = (declared.permutable, declared.may_flip, declared.may_stretch)
        return tuple(kind for kind, flag in zip(KINDS, flags, strict=True) if flag)

    def found(self, group: str) -> tuple[str, ...]:
        """Kinds of symmetry that all networks have, declared or not."""
        return tuple(kind for kind in KINDS if self.worst(group, kind) < self.tolerance)

    def removed(self, group: str) -> tuple[str, ...]:
        """Kinds of symmetry not found: a construction took them, or the layer never had them."""
        return tuple(kind for kind in KINDS if kind not in self.found(group))

    def unsound(self, group: str) -> tuple[str, ...]:
        """Kinds of symmetry that are declared and not found: errors of the weight space."""
        return tuple(kind for kind in self.declared(group) if kind in self.removed(group))

    def __str__(self) -> str:
        rows = [["group", "size", *KINDS, "declared", "found", "removed"]]
        rows += [self._row(name) for name in self.groups]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        lines.append(f"(largest residual of each kind; found: below {self.tolerance:.1e})")
        return "\n".join(lines)

    def _row(self, group: str) -> list[str]:
        residuals = [f"{self.worst(group, kind):.1e}" for kind in KINDS]
        kinds = [self.declared(group), self.found(group), self.removed(group)]
        texts = [", ".join(names) or "-" for names in kinds]
        if unsound := self.unsound(group):
            texts[-1] += f"  DECLARED, BUT NOT FOUND: {', '.join(unsound)}"
        return [group, str(self.groups[group].size), *residuals, *texts]
