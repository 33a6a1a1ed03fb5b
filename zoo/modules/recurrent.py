"""Recurrent layers as plain operations: torch's fused ones know no batch of networks."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch._decomp import decomposition_table
from torch._decomp.decompositions import _rnn_helper, gather_params, one_layer_lstm
from torch.overrides import TorchFunctionMode

Function = Callable[..., Any]


def _lstm(
    inputs: Tensor,
    start: Sequence[Tensor],
    params: Sequence[Tensor],
    has_bias: bool,
    *options: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    """As torch takes it apart, but for its kernel for inference, which has no gradient."""
    hidden, cell = start
    layers = gather_params(params, has_bias, hidden.size(2) != cell.size(2))
    states = list(zip(hidden, cell, strict=True))
    run: Function = _rnn_helper
    outputs, ends = run(inputs, states, layers, has_bias, *options, one_layer_lstm)
    hiddens, cells = zip(*ends, strict=True)
    return outputs, torch.stack(hiddens), torch.stack(cells)


def _cell(layer: Function, inputs: Tensor, start: Any, *params: Tensor | None) -> Any:
    """A cell as its layer on a sequence of one step."""
    states = [state[None] for state in (start if isinstance(start, tuple) else (start,))]
    weights = [tensor for tensor in params if tensor is not None]
    begin = states[0] if len(states) == 1 else states
    options = (len(weights) > 2, 1, 0.0, False, False, False)  # biases, layers, dropout, ...
    ends = [end[0] for end in layer(inputs[None], begin, weights, *options)[1:]]
    return ends[0] if len(ends) == 1 else tuple(ends)


_LAYERS: dict[Function, Function] = {
    torch.lstm: _lstm,
    torch.gru: decomposition_table[torch.ops.aten.gru.input],
    torch.rnn_tanh: decomposition_table[torch.ops.aten.rnn_tanh.input],
    torch.rnn_relu: decomposition_table[torch.ops.aten.rnn_relu.input],
}
_CELLS: dict[Function, Function] = {
    torch.lstm_cell: partial(_cell, _LAYERS[torch.lstm]),
    torch.gru_cell: partial(_cell, _LAYERS[torch.gru]),
    torch.rnn_tanh_cell: partial(_cell, _LAYERS[torch.rnn_tanh]),
    torch.rnn_relu_cell: partial(_cell, _LAYERS[torch.rnn_relu]),
}


class PlainRecurrence(TorchFunctionMode):
    """Within it LSTM, GRU and RNN layers and cells run under `torch.func.vmap`, with gradients.

    Packed sequences do not: torch runs them as it does.
    """

    def __torch_function__(
        self,
        func: Function,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run a function of torch, a recurrent one step by step."""
        if func in _CELLS or (func in _LAYERS and isinstance(args[3], bool)):
            func = (_LAYERS | _CELLS)[func]
        return func(*args, **(kwargs or {}))
