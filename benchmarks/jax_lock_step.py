"""The same training in JAX: vmap over networks, scan over steps, jit around both.

Imported only if jax is installed.
"""

from collections.abc import Callable
from typing import Any

STEPS, NETWORKS = 64, {"MLP": 256, "CNN": 32}


def compiled_training(
    case: str, shape: tuple[int, ...], batch: int
) -> tuple[Callable[[], Any], int]:
    """Compile lock-step SGD with momentum and weight decay for many networks.

    Args:
        case: Name of the case; starts with MLP or CNN.
        shape: Shape of an image.
        batch: Images in a batch.

    Returns:
        A function that trains all networks for some steps, and the number of network-steps it
        takes.
    """
    import jax  # type: ignore[import-not-found]
    import jax.numpy as jnp  # type: ignore[import-not-found]

    x = jax.random.uniform(jax.random.PRNGKey(0), (1200, *shape))
    y = jax.random.randint(jax.random.PRNGKey(1), (1200,), 0, 10)
    shapes, forward = _mlp(jnp) if case.startswith("MLP") else _cnn(jax, jnp)

    def loss(params: Any, index: Any) -> Any:
        log_p = jax.nn.log_softmax(forward(params, x[index]))
        return -jnp.take_along_axis(log_p, y[index][:, None], 1).mean()

    def step(carry: Any, key: Any) -> Any:
        params, velocity, lr = carry
        grads = jax.grad(loss)(params, jax.random.randint(key, (batch,), 0, len(y)))
        velocity = jax.tree.map(lambda v, g, p: 0.9 * v + g + 1e-4 * p, velocity, grads, params)
        return (jax.tree.map(lambda p, v: p - lr * v, params, velocity), velocity, lr), 0.0

    def train(params: Any, key: Any, lr: Any) -> Any:
        start = (params, jax.tree.map(jnp.zeros_like, params), lr)
        return jax.lax.scan(step, start, jax.random.split(key, STEPS))[0][0]

    networks = NETWORKS[case[:3]]
    keys = jax.random.split(jax.random.PRNGKey(2), networks)
    params = {
        name: 0.1 * jax.random.normal(keys[0], (networks, *size)) for name, size in shapes.items()
    }
    compiled, lr = jax.jit(jax.vmap(train)), jnp.full((networks,), 0.01)
    jax.block_until_ready(compiled(params, keys, lr))
    return lambda: jax.block_until_ready(compiled(params, keys, lr)), networks * STEPS


def _mlp(jnp: Any) -> tuple[dict[str, tuple[int, ...]], Callable[[Any, Any], Any]]:
    widths = (64, 32, 32, 10)
    shapes = {f"w{i}": (widths[i + 1], widths[i]) for i in range(3)} | {
        f"b{i}": (widths[i + 1],) for i in range(3)
    }

    def forward(params: Any, x: Any) -> Any:
        h = x.reshape(len(x), -1)
        for i in range(3):
            h = h @ params[f"w{i}"].T + params[f"b{i}"]
            h = jnp.maximum(h, 0) if i < 2 else h
        return h

    return shapes, forward


def _cnn(jax: Any, jnp: Any) -> tuple[dict[str, tuple[int, ...]], Callable[[Any, Any], Any]]:
    shapes: dict[str, tuple[int, ...]] = {"w3": (10, 16), "b3": (10,)}
    for i, channels in enumerate((1, 16, 16)):
        shapes |= {f"w{i}": (16, channels, 3, 3), f"b{i}": (16,)}

    def forward(params: Any, x: Any) -> Any:
        h = x
        for i in range(3):
            h = jax.lax.conv(h, params[f"w{i}"], (2, 2), "SAME") + params[f"b{i}"][:, None, None]
            h = jnp.maximum(h, 0)
        return h.mean((2, 3)) @ params["w3"].T + params["b3"]

    return shapes, forward
