"""The batches of a run: training images, validation images, and the training images as they are."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.data import DataLoader

from autolora.data import ImageSet, loader
from autolora.experiments.assessment import evaluation_batch
from autolora.experiments.config import RunConfig
from autolora.training.replicas import whole_shares


def training_batches(images: ImageSet, config: RunConfig, device: torch.device) -> DataLoader[Any]:
    """Return shuffled batches, moved as bytes and put into [0, 1] on the device; the size is resolved already."""
    assert isinstance(config.batch_size, int)
    drop_last = len(images) > config.batch_size  # batch norm needs more than the one image that may be left
    return _in_bytes(images, config.batch_size, config, device, shuffle=True, drop_last=drop_last)


def validation_batches(
    images: ImageSet, seen: int, config: RunConfig, device: torch.device, processes: int = 1
) -> DataLoader[Any]:
    """Return batches for judging, as bytes; ``seen`` is the side in pixels that the network computes on."""
    return _in_bytes(images, whole_shares(evaluation_batch(seen), processes), config, device)


def clean_batches(train: ImageSet, config: RunConfig, processes: int = 1) -> DataLoader[Any]:
    """Return the training images as they are, in an order that is random once and for all: the first are a sample."""
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(config.seed)).tolist()
    # a generator of its own, so that measuring leaves the order and the augmentation of training as they are
    generator = torch.Generator().manual_seed(config.seed)
    images = train.with_augmentation(False).subset(order)
    seen = config.upsample_to or config.image_size
    size = whole_shares(evaluation_batch(seen), processes)
    return loader(images, size, generator=generator, num_workers=config.workers)


def _in_bytes(
    images: ImageSet, batch_size: int, config: RunConfig, device: torch.device, **order: Any
) -> DataLoader[Any]:
    """Return batches that are moved as bytes, and put into [0, 1] on the device."""
    pinned = device.type == "cuda"
    return loader(images, batch_size, num_workers=config.workers, pin_memory=pinned, in_bytes=True, **order)
