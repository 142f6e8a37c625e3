"""Random patches of a site's own cases, batch by batch."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from fedbrats.config.schema import InputConfig, TrainConfig
from fedbrats.data.augment import augment
from fedbrats.data.cache import CachedCase
from fedbrats.data.intensity import Normaliser
from fedbrats.data.patches import draw_batch
from fedbrats.data.whole import draw_whole

Batch = tuple[Tensor, Tensor]


def batches(
    cases: Sequence[CachedCase],
    rng: np.random.Generator,
    train: TrainConfig,
    rules: InputConfig,
    steps: int,
    device: torch.device,
    normalise: Normaliser | None = None,
    known: Mapping[str, int] | None = None,
) -> Iterator[Batch]:
    """`steps` batches of images float32 [B, 4, *patch] and canonical labels uint8 [B, *patch] on `device`.

    The patch is `train.patch`, else that of the network's `rules`; one of two sides is cut from slices. With labels of
    whole cases (`known`) the images are whole cases resized to it, and the labels uint8 [B].
    """

    def make() -> Iterator[Batch]:
        for _ in range(steps):
            yield draw(cases, rng, train, rules, train.batch, normalise, known)

    if device.type != "cuda":
        return make()
    return _prefetched(make(), device)


def draw(
    cases: Sequence[CachedCase],
    rng: np.random.Generator,
    train: TrainConfig,
    rules: InputConfig,
    batch: int,
    normalise: Normaliser | None = None,
    known: Mapping[str, int] | None = None,
) -> Batch:
    """One batch of `batch` images and labels on the CPU, augmented; arguments and values as of `batches`."""
    sides = train.patch or rules.patch
    if known:
        whole, labels = draw_whole(
            cases,
            known,
            rng,
            sides=sides,
            batch=batch,
            planes=rules.planes,
            normalise=normalise,
            crop=rules.crop,
        )
        nowhere = torch.zeros(batch, *sides, dtype=torch.uint8)  # what augmentation moves with the images
        return augment(whole, nowhere, rng, train.augment)[0], labels
    drawn = draw_batch(
        cases,
        rng,
        patch=sides,
        batch=batch,
        tumour_share=train.tumour_share,
        tumour_centre=train.tumour_centre,
        planes=rules.planes,
        normalise=normalise,
    )
    return augment(torch.from_numpy(drawn[0]), torch.from_numpy(drawn[1]), rng, train.augment)


def _prefetched(source: Iterator[Batch], device: torch.device, depth: int = 2) -> Iterator[Batch]:
    """The batches of `source`, made and pinned in a thread while the GPU works; order and content are the same."""
    ready: queue.Queue[Batch | BaseException | None] = queue.Queue(maxsize=depth)
    stop = threading.Event()

    def put(item: Batch | BaseException | None) -> None:
        while not stop.is_set():
            with contextlib.suppress(queue.Full):
                ready.put(item, timeout=0.1)
                return

    def fill() -> None:
        try:
            for images, labels in source:
                put((images.pin_memory(), labels.pin_memory()))
            put(None)
        except BaseException as error:  # handed to the training loop, which raises it
            put(error)

    threading.Thread(target=fill, daemon=True).start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item[0].to(device, non_blocking=True), item[1].to(device, non_blocking=True)
    finally:
        stop.set()
