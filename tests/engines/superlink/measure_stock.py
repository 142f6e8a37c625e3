"""What a round costs in Flower as it comes, beside `measure.py`: `python -m tests.engines.superlink.measure_stock 20`.

Three SuperNodes on this machine, FedAvg with federated evaluation, Flower's own defaults; a site hands back what it was
sent, so that all of a round's time is beyond its work. The word is the size of the model in MB.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import httpx
from flwr.cli.build import build_fab_from_files
from flwr.common.serde import fab_to_proto, user_config_to_proto
from flwr.proto.control_pb2 import ListNodesRequest, StartRunRequest
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.fab import Fab
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor

from tests.engines.superlink.deployment import PACE, free_ports, wait

SITES, ROUNDS, ARRAYS = 3, 5, 40
PYPROJECT = """\
[project]
name = "stock"
version = "1.0.0"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "stock"

[tool.flwr.app.components]
serverapp = "stock.server:app"
clientapp = "stock.site:app"

[tool.flwr.app.config]
out = ""
megabytes = 20
"""
SERVER = f"""\
import json, time
import numpy as np
from flwr.app import ArrayRecord
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()

@app.main()
def main(grid, context):
    ends = []
    count = int(context.run_config["megabytes"] * 1e6 / 4 / {ARRAYS})
    arrays = ArrayRecord([np.random.rand(count).astype(np.float32) for _ in range({ARRAYS})])

    class Timed(FedAvg):
        def aggregate_evaluate(self, server_round, replies):
            found = super().aggregate_evaluate(server_round, replies)
            ends.append(time.time())
            return found

    nodes = dict(min_train_nodes={SITES}, min_evaluate_nodes={SITES}, min_available_nodes={SITES})
    Timed(fraction_train=1.0, fraction_evaluate=1.0, **nodes).start(grid, arrays, num_rounds={ROUNDS})
    with open(context.run_config["out"], "w") as handle:
        json.dump(ends, handle)
"""
SITE = """\
from flwr.app import Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()

@app.train()
def train(message, context):
    content = RecordDict({"arrays": message.content["arrays"], "metrics": MetricRecord({"num-examples": 1})})
    return Message(content, reply_to=message)

@app.evaluate()
def evaluate(message, context):
    return Message(RecordDict({"metrics": MetricRecord({"num-examples": 1, "dice": 0.5})}), reply_to=message)
"""


def main(megabytes: float) -> None:
    """Run it and print the table."""
    port = free_ports(1 + SITES)
    address = f"127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as name, ExitStack() as running:
        folder = Path(name)
        programs = [("flower-superlink", "--insecure", "--host", "127.0.0.1", "--port", str(port))]
        programs += [
            *(
                ("flower-supernode", "--insecure", "--superlink", address, "--port", str(port + 1 + i))
                for i in range(SITES)
            )
        ]
        for number, words in enumerate(programs):
            own = Path(sys.executable).parent
            env = {**os.environ, **PACE, "FLWR_HOME": str(folder / f"home{number}")}
            env["PATH"] = f"{own}{os.pathsep}{env['PATH']}"  # Flower starts its other programs by name
            log = running.enter_context((folder / f"{number}.log").open("wb"))
            process = subprocess.Popen([own / words[0], *words[1:]], env=env, stdout=log, stderr=log)
            running.callback(process.wait)
            running.callback(process.terminate)
        client = ControlHttpClient.from_server_address(
            server_address=address,
            insecure=True,
            root_certificates=None,
            interceptors=[RuntimeVersionHttpInterceptor(component_name="flwr CLI")],
        )
        running.callback(client.close)

        def all_there() -> bool:
            try:
                found = client.ListNodes(ListNodesRequest()).nodes_info
            except httpx.HTTPError:
                return False
            return sum(node.status == "online" for node in found) == SITES

        def logs() -> str:
            return "\n".join(file.read_text()[-3000:] for file in sorted(folder.glob("*.log")))

        wait(all_there, 180, logs)
        files = {"pyproject.toml": PYPROJECT, "LICENSE": "Apache-2.0\n", "stock/__init__.py": ""}
        files |= {"stock/server.py": SERVER, "stock/site.py": SITE}
        content = build_fab_from_files({path: text.encode() for path, text in files.items()})[0]
        out = folder / "ends.json"
        client.StartRun(
            StartRunRequest(
                fab=fab_to_proto(Fab(hashlib.sha256(content).hexdigest(), content, {})),
                override_config=user_config_to_proto({"out": str(out), "megabytes": megabytes}),
            )
        )
        wait(out.is_file, 1200, logs)
        time.sleep(1.0)  # the file is whole
        seconds = [after - before for before, after in pairwise(json.loads(out.read_text()))]
    print(f"{SITES} sites, {megabytes:g} MB, Flower as it comes")
    print("seconds of rounds 2 to", f"{ROUNDS}:", " ".join(f"{s:.2f}" for s in seconds))
    print(f"median: {sorted(seconds)[len(seconds) // 2]:.2f} s")


if __name__ == "__main__":
    main(float(sys.argv[1]))
