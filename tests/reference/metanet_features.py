"""Slow, obvious features: one network, one tensor, one number at a time."""

import numpy as np


def free_values(params, free, tensor, network):
    values = params[tensor][network].double().numpy().reshape(-1)
    return values[free[tensor].numpy().reshape(-1)] if tensor in free else values


def flat(space, free, params):
    count = len(next(iter(params.values())))
    return np.stack(
        [
            np.concatenate([free_values(params, free, name, n) for name in space.tensors])
            for n in range(count)
        ]
    )


def statistics(space, free, params):
    rows = []
    for network in range(len(next(iter(params.values())))):
        row = []
        for name in space.tensors:
            v = free_values(params, free, name, network)
            row += [np.mean(v), np.var(v), np.min(v), np.max(v), *np.quantile(v, [0.25, 0.5, 0.75])]
        rows.append(row)
    return np.array(rows)
