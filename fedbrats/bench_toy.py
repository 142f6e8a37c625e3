"""A federation whose sites do nothing, to measure what is left: messages, checks, aggregation."""

from __future__ import annotations

import torch
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch import nn

from fedbrats.federation import exchange

TOY_FLOATS = 5_000_000  # 20 MB of float32


class ToyNetwork(nn.Module):
    """20 MB of parameters that do nothing."""

    def __init__(self) -> None:
        super().__init__()
        size = TOY_FLOATS // 50
        self.layers = nn.ParameterList([nn.Parameter(torch.zeros(size)) for _ in range(50)])


def toy_client_app() -> ClientApp:
    """A site without data: it loads the model, adds one and sends it back, as exact as a real one in what travels."""
    network, app = ToyNetwork(), ClientApp()
    expected = exchange.signature(exchange.travelling(network))

    def take(message: Message) -> None:
        exchange.load(network, exchange.from_record(message.content["arrays"], expected))

    @app.query()
    def _(message: Message, context: Context) -> Message:
        facts = {"site": str(context.node_config["site"]), "train": 1, "val": 1, "test": 0}
        facts["arrays"] = exchange.fingerprint(expected)
        return Message(RecordDict({"facts": ConfigRecord(facts)}), reply_to=message)

    @app.train()
    def _(message: Message, context: Context) -> Message:
        take(message)
        metrics = MetricRecord({"num-examples": 1, "loss": 0.0, "seconds": 0.0})
        arrays = exchange.to_record(exchange.travelling(network))
        return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)

    @app.evaluate()
    def _(message: Message, context: Context) -> Message:
        take(message)
        dice = {f"dice-{region}": 1.0 for region in ("wt", "tc", "et")}
        metrics = MetricRecord({"num-examples": 1, "loss": 0.0, "seconds": 0.0, **dice})
        return Message(RecordDict({"metrics": metrics}), reply_to=message)

    return app
