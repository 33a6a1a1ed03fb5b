"""Neighborhoods against a loop over nodes, and graphs of torch_geometric by name."""

from pathlib import Path

import pytest
import torch
import torch_geometric
from torch_geometric.datasets import KarateClub

from data_gen.config import Job
from data_gen.generation import generate
from data_gen.rng import generator
from data_gen.tasks.graphs import NUM_NODES, load_graph, neighborhoods
from data_gen.tasks.task import TaskConfig, load_task
from zoo.config import ConfigError, read_config
from zoo.store.zoo import load


def by_hand(edges, features, count):
    """One node at a time, on the dense adjacency matrix."""
    total, width = features.shape
    adjacency = torch.zeros(total, total)
    adjacency[edges[0], edges[1]] = 1.0
    expected = torch.zeros(count, width + 1 + NUM_NODES, NUM_NODES)
    for node in range(count):
        nodes = [node, *adjacency[node].nonzero()[:, 0].tolist()][:NUM_NODES]
        expected[node, width, 0] = 1.0
        for i, first in enumerate(nodes):
            expected[node, :width, i] = features[first]
            for j, second in enumerate(nodes):
                expected[node, width + 1 + i, j] = adjacency[first, second]
    return expected


@pytest.mark.parametrize("density", [0.0, 0.05, 0.6])
def test_neighborhoods_are_those_of_a_loop(density, monkeypatch):
    monkeypatch.setattr("data_gen.tasks.graphs._NODES_AT_ONCE", 7)
    random = generator(0, "graph test")
    upper = torch.triu(torch.rand(40, 40, generator=random) < density, diagonal=1)
    edges = (upper | upper.T).nonzero().T
    features = torch.randn(40, 3, generator=random)
    assert torch.equal(neighborhoods(edges, features, 30), by_hand(edges, features, 30))


def test_a_graph_by_name_is_that_graph_in_another_order():
    graph = KarateClub()[0]
    edges, features, y = load_graph("KarateClub", {}, None, generator(0))
    old = features.argmax(1)  # features are one for each node
    assert sorted(old.tolist()) == list(range(34))
    assert old.tolist() != list(range(34))
    assert torch.equal(y, graph.y[old])
    assert {tuple(e) for e in old[edges].T.tolist()} == {
        tuple(e) for e in graph.edge_index.T.tolist()
    }


def test_a_task_on_a_graph():
    task = load_task(TaskConfig(name="graph", dataset="KarateClub", train_size=20))
    assert (task.input_shape, task.num_classes) == ((34 + 1 + NUM_NODES, NUM_NODES), 4)
    assert (len(task.train.y), len(task.test.y)) == (20, 14)
    assert float(task.inputs(task.test.x).abs().max()) < 1e3, (
        "features that no training node has are not blown up"
    )
    other = load_task(TaskConfig(name="graph", dataset="KarateClub", train_size=20, seed=1))
    assert not torch.equal(task.train.y, other.train.y)


class Kept:
    """Stands for a data set that keeps its files in a folder, without the download."""

    def __init__(self, root, name):
        (Path(root) / name).mkdir(parents=True, exist_ok=True)

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return KarateClub()[index]


def test_a_zoo_on_a_graph_that_keeps_files(tmp_path, monkeypatch):
    monkeypatch.setattr(torch_geometric.datasets, "Planetoid", Kept)
    job = {
        "task": {
            "name": "graph",
            "dataset": "Planetoid",
            "options": {"name": "Cora"},
            "path": str(tmp_path / "graph"),
        },
        "count": 4,
        "hyperparameters": {"steps": 60, "batch_size": 17, "lr": 0.01, "optimizer": "adamw"},
        "populations": {
            "standard": {
                "architecture": {"name": "gin", "hidden": 8, "layers": 1, "edges": "input"}
            }
        },
    }
    zoo = load(generate(Job.model_validate(job), tmp_path / "zoo", quiet=True, compile=False))
    assert (tmp_path / "graph" / "Cora").is_dir()
    assert zoo["standard"].table("train")["train_loss"].max() < 1.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": None}, "task.dataset: needed"),
        ({"dataset": "Cora"}, "no 'Cora' in torch_geometric.datasets"),
        ({"dataset": "Planetoid", "options": {"name": "Cora"}}, "task.path: needed for Planetoid"),
        ({"options": {"colour": 1}}, "unexpected keyword argument 'colour'"),
        (
            {"dataset": "FakeDataset", "options": {"num_graphs": 3}},
            "expected one graph with features and a label for every node",
        ),
        ({"train_size": 40}, "task.train_size: expected 1 to 33"),
    ],
)
def test_what_is_no_graph_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        load_task(TaskConfig(**{"name": "graph", "dataset": "KarateClub"} | changes))


def test_options_of_other_tasks_are_refused(tmp_path):
    path = tmp_path / "task.yaml"
    path.write_text("name: digits\ndataset: KarateClub\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="dataset: not an option of the task 'digits'"):
        read_config(TaskConfig, path)
    path.write_text("name: graph\ndataset: KarateClub\ngrey: true\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="grey: not an option of the task 'graph'"):
        read_config(TaskConfig, path)
