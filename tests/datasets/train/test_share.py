"""N processes see, batch by batch, what one process sees: order, and the augmentation of each sample."""

from itertools import chain
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.data import RandomSampler

from tinyyolo.datasets import spec as data_yaml
from tinyyolo.datasets.train.dataset import TinyDataset
from tinyyolo.datasets.train.loader import InBlocks, Seeded, Share, seed_of
from tinyyolo.engine.arguments import resolve


def order(rank, size, batch=4, count=11, seed=3, fill=True):
    """Batches of a process's loader."""
    sampler = RandomSampler(range(count), generator=torch.Generator().manual_seed(7))
    share = Share(InBlocks(sampler, [None] * count, {}), batch, rank, size, fill)
    share.seed = seed
    own, length = list(share), batch // size
    assert len(own) == len(share)
    return [own[i : i + length] for i in range(0, len(own), length)]


@pytest.mark.parametrize("size", [1, 2, 4])
def test_all_see_what_one_sees(size):
    whole, parts = order(0, 1), [order(rank, size) for rank in range(size)]
    assert all(len(part) == 3 for part in parts)  # as many batches in each process, or they would wait for ever
    together = [list(chain(*batches)) for batches in zip(*parts, strict=True)]
    assert together[:2] == whole[:2]  # of 11 samples the last batch has 3
    assert together[2][:3] == whole[2] and len(together[2]) == max(3, size)
    assert sorted(sample for batch in whole for sample, _ in batch) == list(range(11))
    assert len({seed for batch in whole for _, seed in batch}) == 11


def test_in_validation_every_sample_is_seen_once():
    parts = [list(Share(range(9), 8, rank, 4, fill=False)) for rank in range(4)]
    assert parts == [[0, 1, 8], [2, 3], [4, 5], [6, 7]]


def test_a_set_of_fewer_images_than_processes():
    parts = [list(Share(range(2), 6, rank, 3)) for rank in range(3)]
    assert parts == [[0], [1], [0]]


def test_epochs_and_places_have_seeds_of_their_own():
    assert len({seed_of(epoch, place) for epoch in range(20) for place in range(20)}) == 400


def test_augmentation_depends_on_the_place_alone(tiny_set):
    keys = {"mosaic": 0, "degrees": 10, "hsv_v": 0.5, "flipud": 0.5, "paste": 2}
    hyp = SimpleNamespace(**resolve("train", {}, keys))
    options = {"imgsz": 64, "batch_size": 2, "hyp": hyp, "rect": False, "stride": 32, "pad": 0.0, "augment": True}
    samples = TinyDataset(data_yaml.load(str(tiny_set)), "train", **options)
    first = samples[Seeded(2, 5)]
    samples[Seeded(1, 8)]
    again, other = samples[Seeded(2, 5)], samples[Seeded(2, 6)]
    torch.testing.assert_close(again["img"], first["img"], rtol=0, atol=0)
    torch.testing.assert_close(again["bboxes"], first["bboxes"], rtol=0, atol=0)
    assert not np.array_equal(other["img"], first["img"])
