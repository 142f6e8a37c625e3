"""What a site remembers between rounds, kept in its own storage and nowhere else.

One safetensors file per arm and round, named by the round that made it. A site that starts round r loads the newest
file older than r: after a crash, a restart or a resume this is the state that belongs to the round, and files of
rounds that are computed again are simply overwritten.
"""

from __future__ import annotations

from pathlib import Path

from flwr.app import ArrayRecord, ConfigRecord, RecordDict
from safetensors.torch import load_file, save_file
from torch import Tensor

from fedbrats.federation.wire import own_tensor, to_record
from fedbrats.files import replacing

ARRAYS, FACTS = "arrays", "facts"  # records of Flower's context, after the name of the folder


def _file(folder: Path, round_: int) -> Path:
    return folder / f"round_{round_:05d}.safetensors"


def _rounds(folder: Path) -> list[int]:
    return sorted(int(f.stem.removeprefix("round_")) for f in folder.glob("round_*.safetensors"))


def save_state(folder: Path, round_: int, tensors: dict[str, Tensor], *, keep_from: int) -> None:
    """Write the state that round `round_` leaves, atomically, and drop what no resume can ask for again.

    Args:
        folder: of one site and one arm.
        round_: the round that made the state.
        tensors: by name.
        keep_from: round of the server's newest checkpoint; the newest state at or before it is kept.
    """
    with replacing(_file(folder, round_), private=True) as unfinished:
        save_file(tensors, unfinished)
    resumable = [r for r in _rounds(folder) if r <= keep_from]
    for old in resumable[:-1]:
        _file(folder, old).unlink(missing_ok=True)


def load_state(folder: Path, before_round: int) -> dict[str, Tensor]:
    """The newest state of a round older than `before_round`; empty if there is none."""
    older = [r for r in _rounds(folder) if r < before_round]
    return load_file(_file(folder, older[-1])) if older else {}


def remember(
    folder: Path, round_: int, tensors: dict[str, Tensor], context: RecordDict | None, *, keep_from: int
) -> None:
    """Keep a state in the site's storage, as `save_state` does, and in Flower's context for the next round."""
    save_state(folder, round_, tensors, keep_from=keep_from)
    if context is not None:  # after the file, so that the context never knows more than a restart would find
        context[f"{folder.name}-{ARRAYS}"] = to_record(tensors)
        context[f"{folder.name}-{FACTS}"] = ConfigRecord({"round": round_})


def recall(folder: Path, before_round: int, context: RecordDict | None = None) -> dict[str, Tensor]:
    """What `remember` kept in the newest round older than `before_round`; empty if there is none.

    Flower's context saves the reading; where it is empty (after a restart) or of another round (after a resume from
    an older one) the file decides.
    """
    older = [r for r in _rounds(folder) if r < before_round]
    if not older:
        return {}
    facts = f"{folder.name}-{FACTS}"
    if context is not None and facts in context and context[facts].get("round") == older[-1]:
        arrays = context[f"{folder.name}-{ARRAYS}"]
        assert isinstance(arrays, ArrayRecord)
        return {name: own_tensor(array) for name, array in arrays.items()}
    return load_file(_file(folder, older[-1]))
