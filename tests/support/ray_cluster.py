"""A Ray cluster of a head and a worker, both on this machine's loopback, whose worker can be killed.

    python tests/support/ray_cluster.py

Prints its address. Told a line, it kills the worker's node while an experiment is at work there, at a moment that is
left to chance, and prints the folder of that experiment. At the end of its input it ends.
"""

import random
import sys
import time

import psutil
from ray.cluster_utils import Cluster

NODE = {"node_ip_address": "127.0.0.1", "num_cpus": 1, "num_gpus": 0, "include_dashboard": False}
LONGEST_WAIT = 120.0
SPREAD = 4.0
"""Seconds within which the node dies; an experiment takes longer."""


def main() -> None:
    cluster = Cluster(initialize_head=True, head_node_args=NODE)
    worker = cluster.add_node(**NODE)
    print(cluster.address, flush=True)
    for _ in sys.stdin:
        found = experiment(psutil.Process(dict(worker.live_processes())["raylet"].pid))
        folder = found.cwd()
        time.sleep(random.uniform(0, SPREAD))
        at_work = found.is_running()
        cluster.remove_node(worker, allow_graceful=False)
        print(folder if at_work else f"{folder} was done", flush=True)
    cluster.shutdown()


def experiment(raylet: psutil.Process) -> psutil.Process:
    """A node's `dvc repro`, once there is one."""
    ends = time.monotonic() + LONGEST_WAIT
    while time.monotonic() < ends:
        for process in raylet.children(recursive=True):
            try:
                if "repro" in process.cmdline():
                    return process
            except psutil.NoSuchProcess:
                continue
        time.sleep(0.1)
    sys.exit("no experiment has begun on the worker")


if __name__ == "__main__":
    main()
