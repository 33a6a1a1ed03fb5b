"""Zoos of every kind of task, and of a module, are the same to the byte on a Ray cluster."""

import pytest

from data_gen.executors.executor import InThisProcess
from data_gen.executors.ray import RayActors
from data_gen.generation import generate
from tests.data_gen import test_kinds_of_tasks, test_module_zoos, test_per_network
from tests.data_gen.jobs import visible

pytestmark = pytest.mark.deep
data = test_per_network.data  # the current folder, with the files of signals
JOBS = {
    **{
        kind: test_kinds_of_tasks.job_of(test_kinds_of_tasks.TASKS[kind])
        for kind in ("numbers", "classes", "binary")
    },
    **{f"signals, {form}": test_per_network.job_of(form) for form in test_per_network.FORMS},
    "module with dropout": test_module_zoos.job_of(),
}


@pytest.fixture(scope="module")
def cluster():
    """One cluster of this machine for all jobs."""
    pytest.importorskip("ray", reason="Ray is an extra")
    from ray.cluster_utils import Cluster

    started = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    yield started.address
    started.shutdown()


@pytest.mark.parametrize("kind", JOBS)
def test_a_cluster_makes_the_same_zoo(kind, cluster, tmp_path):
    executors = {"here": InThisProcess(1), "ray": RayActors(workers=2, address=cluster)}
    zoos = [
        visible(generate(JOBS[kind], tmp_path / n, "cpu", compile=False, quiet=True, executor=e))
        for n, e in executors.items()
    ]
    assert zoos[0] == zoos[1]
