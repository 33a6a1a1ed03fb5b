"""`zoo.population`: networks that anyone has, as metanets and studies read them, without a file."""

import numpy as np
import pandas as pd
import torch

from zoo.architectures.base import Inputs, constants_of
from zoo.options import Seed, checked
from zoo.params import select
from zoo.store.entries import SPLITS
from zoo.views import PopulationView, in_memory
from zoo.writing.content import Networks, content_of
from zoo.writing.networks import Model
from zoo.writing.splits import Split
from zoo.writing.tables import Roles, Table


@checked
def population(
    model: Model,
    networks: Networks,
    table: Table,
    split: Split = (0.7, 0.15, 0.15),
    roles: Roles | None = None,
    example_inputs: Inputs | None = None,
    seed: Seed = 0,
    name: str = "networks",
) -> PopulationView:
    """A population of networks that are in memory; nothing is written.

    Args:
        model: An architecture, a module with `example_inputs`, or a weight space.
        networks: Tensors `[N, *shape]` by name, or one state dict a network.
        table: A data frame, or one mapping a network, in the order of the networks.
        split: Shares of training, validation and test, or the column that says it of each network.
        roles: Roles of columns, as `zoo.write` takes them.
        example_inputs: Inputs that a module is traced with.
        seed: Of the draw of splits.
        name: What it is called.

    Returns:
        The population. Networks of a split are in the order in which they were given.

    Raises:
        ValueError: If something does not fit; it names the network and the tensor.

    >>> from zoo.weight_space import NeuronGroup, WeightSpace
    >>> space = WeightSpace({"h": NeuronGroup(3)}, {"bias": "h"})
    >>> rows = [{"test_accuracy": i / 20} for i in range(20)]
    >>> population(space, {"bias": torch.randn(20, 3)}, rows).splits
    ('train', 'validation', 'test')
    """
    given = {name: (model, networks, table)}
    columns, (content,) = content_of(given, split, roles or {}, example_inputs, seed)
    order = content.order
    ((_, params),) = content.blocks([np.arange(len(order))])
    kind, ids = content.kind, {"network_id": np.arange(len(order))}
    drawn = [name for name, column in columns.items() if column.role == "hyperparameter"]
    return in_memory(
        name,
        kind.space,
        select(params, torch.from_numpy(order)),
        pd.DataFrame(ids | content.columns(order)),
        {split: content.sizes[split] for split in SPLITS if content.sizes[split]},
        hyperparameters=tuple(drawn),
        free=constants_of(kind.constants, "free"),
        architecture=kind.architecture,
        columns=columns,
    )
