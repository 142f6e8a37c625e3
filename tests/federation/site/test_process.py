"""A site's own process holds nothing of the server."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.federation.toy import write_toy_run

SITE = """
import sys
from flwr.app import ConfigRecord, Message, RecordDict
from fedbrats.engines.sites import answer, new_context, set_identity, set_message_id
from fedbrats.federation import questions
from fedbrats.federation.site.app import make_client_app

set_identity(2)
context = new_context(2, {{"site": "A"}})
app = make_client_app({folder!r})
message = Message(RecordDict(), 2, questions.JOIN, ttl=60.0, group_id="1")
set_message_id(message, "1")
reply = answer(app, message, context)
assert reply.content["facts"]["train"] == 1, reply
held = sorted(name for name in sys.modules if name.startswith("fedbrats."))
print("\\n".join(held))
"""


@pytest.mark.slow
def test_a_sites_process_imports_nothing_of_the_server(tmp_path: Path) -> None:
    small = {"init_filters": 8, "blocks_down": [1, 1], "blocks_up": [1], "input": {"patch": [8, 8, 8]}}
    model = {"_target_": "fedbrats.models.networks.segresnet.segresnet", **small}
    folder, _ = write_toy_run(tmp_path, {"A": {"train": ["a1"]}}, model=model)
    script = tmp_path / "site.py"
    script.write_text(SITE.format(folder=str(folder)))
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(root), "PATH": "", "HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    held = done.stdout.splitlines()
    assert "fedbrats.federation.site.training" in held
    assert not [name for name in held if name.startswith("fedbrats.federation.server")]
    above = ("fedbrats.commands", "fedbrats.report", "fedbrats.studies", "fedbrats.audit")
    assert not [name for name in held if name.startswith(above)]
