"""The task of a stochastic block model, and the networks that read a graph from each input."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from data_gen.config import load_job
from data_gen.generation import generate
from data_gen.integrity.verify import verify_zoo
from data_gen.populations import build_population
from data_gen.rng import generator
from data_gen.tasks.graphs import NUM_NODES
from data_gen.tasks.sbm import ACROSS, NUM_BLOCKS, NUM_FEATURES, WITHIN, make_sbm
from data_gen.tasks.task import TaskConfig, load_task
from zoo.architectures import build_architecture
from zoo.sharing.export import export_zoo
from zoo.store.zoo import load
from zoo.testing import check_architecture

CONFIG = TaskConfig(name="sbm", train_size=300, test_size=100)


@pytest.fixture(scope="module")
def nodes() -> tuple[torch.Tensor, torch.Tensor]:
    return make_sbm(402, generator(0, "sbm"))


def test_neighborhoods_are_graphs_with_the_node_first(nodes):
    x, y = nodes
    assert x.shape == (402, NUM_FEATURES + 1 + NUM_NODES, NUM_NODES)
    adjacency, mark = x[:, NUM_FEATURES + 1 :], x[:, NUM_FEATURES]
    assert torch.equal(adjacency, adjacency.mT)
    assert set(adjacency.unique().tolist()) == {0.0, 1.0}
    assert not adjacency.diagonal(dim1=1, dim2=2).any()
    assert torch.equal(mark, torch.eye(NUM_NODES)[:1].expand(402, -1))
    # neighbors come next, and what follows them is empty: no features, no edges
    is_there = adjacency[:, 0].bool() | mark.bool()
    assert torch.equal(is_there, is_there.int().cummin(1).values.bool())
    assert not x[:, :NUM_FEATURES].mT[~is_there].any()
    assert not adjacency[~is_there].any()
    assert x[:, :NUM_FEATURES].mT[is_there].all()
    assert sorted(y.bincount().tolist()) == [100, 100, 101, 101]


def test_degrees_and_blocks_of_neighbors_are_as_told(nodes):
    x, y = nodes
    block_of = {
        tuple(features.tolist()): int(block)
        for features, block in zip(x[:, :NUM_FEATURES, 0], y, strict=True)
    }
    degrees = x[:, NUM_FEATURES + 1].sum(1)
    untruncated = degrees < NUM_NODES - 1
    assert (
        abs(float(degrees[untruncated].mean()) - (WITHIN + ACROSS)) < 2
    )  # the largest are left out
    same = [
        block_of[tuple(x[i, :NUM_FEATURES, j].tolist())] == int(y[i])
        for i in range(len(x))
        for j in range(1, 1 + int(degrees[i]))
    ]
    # A neighborhood that is full keeps neighbors at random: the share is that of all neighbors.
    assert abs(sum(same) / len(same) - WITHIN / (WITHIN + ACROSS)) < 0.04


def test_the_task_depends_on_its_seed_only_and_leaves_the_global_state_alone():
    state = torch.get_rng_state()
    first, same, other = (
        load_task(CONFIG),
        load_task(CONFIG),
        load_task(CONFIG.model_copy(update={"seed": 1})),
    )
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(first.train.x, same.train.x)
    assert torch.equal(first.test.y, same.test.y)
    assert not torch.equal(first.train.y, other.train.y)
    assert (len(first.train.y), len(first.test.y), first.num_classes) == (300, 100, NUM_BLOCKS)


def test_neighbors_tell_more_than_a_node_alone():
    task = load_task(TaskConfig(name="sbm"))

    def score(features):
        model = LogisticRegression(max_iter=500)
        return model.fit(features(task.train.x), task.train.y).score(
            features(task.test.x), task.test.y
        )

    alone = score(lambda x: x[:, :NUM_FEATURES, 0])
    together = score(lambda x: x[:, :NUM_FEATURES].mean(2))
    assert 1.5 / NUM_BLOCKS < alone < together - 0.05


@pytest.mark.parametrize("count", [40, 6000])
def test_graphs_that_are_too_small_or_too_large_are_refused(count):
    with pytest.raises(ValueError, match="sbm: expected 128 to 5000 nodes"):
        make_sbm(count, generator(0, "sbm"))


def test_options_of_images_are_refused():
    with pytest.raises(ValueError, match="grey: not an option of the task 'sbm'"):
        TaskConfig(name="sbm", grey=True)


def test_a_gin_with_the_graph_in_its_input_is_the_gin_of_that_graph():
    task = load_task(CONFIG)
    options = {"hidden": 7, "layers": 2}
    brought = build_architecture("gin", {**options, "edges": "input"}, task.input_shape, NUM_BLOCKS)
    params = {name: p.double() for name, p in brought.init(generator(0, "init")).items()}
    inputs = task.to("cpu", torch.float64).inputs(task.test.x[:6])
    batch_logits = brought.apply(params, inputs)
    for image, x, logits in zip(task.test.x, inputs, batch_logits, strict=False):
        edges = image[NUM_FEATURES + 1 :].nonzero().tolist()
        fixed = build_architecture(
            "gin", {**options, "edges": edges}, (NUM_FEATURES + 1, NUM_NODES), NUM_BLOCKS
        )
        torch.testing.assert_close(
            fixed.apply(params, x[None, : NUM_FEATURES + 1])[0], logits, rtol=1e-12, atol=0
        )


def test_the_architecture_keeps_its_contract():
    task = load_task(CONFIG)
    check_architecture("gin", task.inputs(task.test.x[:5]), hidden=6, edges="input")


@pytest.mark.parametrize("shape", [(4, 4), (3, 4), (8, 2, 2)])
def test_inputs_without_room_for_a_graph_are_refused(shape):
    with pytest.raises(ValueError, match="edges 'input' needs inputs of shape"):
        build_architecture("gin", {"edges": "input"}, shape, 2)


def test_networks_of_the_recipe_learn(tmp_path):
    changes = [
        "count=4",
        "hyperparameters.steps=60",
        "hyperparameters.lr=0.01",
        "hyperparameters.init_scale=1",
    ]
    job = load_job("sbm-gin", changes)
    zoo = load(generate(job, tmp_path / "zoo", compile=False, quiet=True))
    assert list(zoo) == ["standard", "w_asymmetric"]
    for population in zoo.values():
        accuracy = population.table("train").test_accuracy
        assert accuracy.min() > 2 / NUM_BLOCKS
    assert zoo["w_asymmetric"].num_free < zoo["standard"].num_free


def test_scalars_of_asymmetric_networks_are_stored(tmp_path):
    job = load_job(
        "sbm-gin",
        [
            "task.train_size=100",
            "task.test_size=40",
            "count=4",
            "hyperparameters.steps=3",
            "populations={syre: {architecture: {name: gin}, asymmetry: {kind: syre}}}",
        ],
    )
    folder = generate(job, tmp_path / "zoo", device="cpu", compile=False, quiet=True)
    assert verify_zoo(folder) == []
    population = load(folder)["syre"]
    made = build_population(job, "syre", load_task(job.task))
    scalars = {name for name, constant in made.constants.items() if not constant.dim()}
    assert scalars
    assert set(population.constants) == set(made.constants)
    for name, constant in made.constants.items():
        assert population.constants[name].shape == constant.shape
        assert torch.equal(population.constants[name], constant)
    x = load_task(job.task).test.x[:5].float()
    params = {name: tensor[0] for name, tensor in population.params("train").items()}
    assert population.architecture.apply(params, x).isfinite().all()
    exported = export_zoo(load(folder), tmp_path / "out", "parquet") / "syre" / "train.parquet"
    for name, tensor in population.params("train").items():
        values = np.stack(pd.read_parquet(exported)[name].tolist())
        assert values.tobytes() == tensor.numpy().tobytes()
