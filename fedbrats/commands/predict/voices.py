"""Which models an ensemble has, and which of them speak with one voice: lists and folders in `checkpoint`."""

from __future__ import annotations

from collections.abc import Sequence

from fedbrats.export.exported import root_of
from fedbrats.inference.members import split_spec
from fedbrats.runs.reading import RunFolderError, natural
from fedbrats.studies.jobs import find_jobs

Voice = str | list[str]


def voices(checkpoint: str | Sequence[Voice]) -> list[Voice]:
    """The voices of an ensemble, without folders of sweeps.

    A folder of runs stands for the list of what lies in it, in natural order of the names. So `checkpoint=F` with
    F/a, F/b/1 and F/b/2 is [F/a, [F/b/1, F/b/2]], and `checkpoint=[F]` is one voice, the average of all three. What
    follows an @ holds for each run. A job that has begun and left no model is named all the same, so that it is
    refused and not left out.

    Args:
        checkpoint: the argument of `predict`: a model or a folder of them, or a list of such and of lists of such.

    Returns:
        Per voice a model, or a list of models that are averaged.
    """
    entries = _inside(checkpoint) if isinstance(checkpoint, str) else checkpoint
    found: list[Voice] = []
    for entry in entries:
        if isinstance(entry, str):
            models = _models(entry)
            found.append(entry if models == [entry] else models)
        else:
            found.append([model for text in entry for model in _models(text)])
    return found


def _models(text: str) -> list[str]:
    """`text` itself if it names a model, or else every run of the folder that it names, however deep."""
    folder, rest = split_spec(text)
    if (folder / "config.yaml").is_file() or root_of(text):
        return [text]
    try:
        return ["@".join([str(job), *rest]) for job in find_jobs(folder)]
    except RunFolderError:
        return [text]  # whoever loads it says what is wrong


def _inside(text: str) -> list[str]:
    """What lies in the folder of runs that `text` names, or `text` itself if it names a model."""
    if _models(text) == [text]:
        return [text]
    folder, rest = split_spec(text)
    holding = {folder / job.relative_to(folder).parts[0] for job in find_jobs(folder)}
    return ["@".join([str(path), *rest]) for path in sorted(holding, key=lambda path: natural(path.name))]
