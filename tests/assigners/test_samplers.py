"""RandomSampler: counts, fractions, chance."""

import pytest
import torch

from tinyyolo.assigners import IGNORE, NEGATIVE, Assignment, RandomSampler


def assignment(positives, negatives, ignored):
    parts = [torch.arange(positives), torch.full((negatives,), NEGATIVE), torch.full((ignored,), IGNORE)]
    shuffle = torch.randperm(positives + negatives + ignored, generator=torch.Generator().manual_seed(0))
    return Assignment(torch.cat(parts)[shuffle])


@pytest.mark.parametrize(
    ("positives", "negatives", "num", "fraction", "expected"),
    [
        (300, 1000, 256, 0.5, (128, 128)),
        (10, 1000, 256, 0.5, (10, 246)),  # negatives fill up
        (200, 50, 256, 0.5, (128, 50)),  # positives do not
        (200, 1000, 512, 0.25, (128, 384)),
        (3, 5, 5, 0.5, (2, 3)),  # int(2.5)
        (0, 0, 256, 0.5, (0, 0)),
        (7, 9, None, 0.5, (7, 9)),
        (7, 9, 10, 0.0, (0, 9)),
    ],
)
def test_counts(positives, negatives, num, fraction, expected):
    found = assignment(positives, negatives, 40)
    positive, negative = RandomSampler(num, fraction)(found)
    assert (len(positive), len(negative)) == expected
    assert bool((found.gt_index[positive] >= 0).all())
    assert bool((found.gt_index[negative] == NEGATIVE).all())
    for idx in (positive, negative):
        assert idx.tolist() == sorted(set(idx.tolist()))


def test_chance_comes_from_the_generator():
    found, sampler = assignment(300, 1000, 0), RandomSampler(64, 0.5)

    def draw(seed):
        return torch.cat(sampler(found, torch.Generator().manual_seed(seed))).tolist()

    assert draw(1) == draw(1) != draw(2)


def test_every_anchor_has_its_chance():
    found, sampler = assignment(8, 8, 0), RandomSampler(8, 0.5)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([torch.cat(sampler(found, generator)) for _ in range(200)])
    counts = torch.bincount(drawn.flatten(), minlength=16)
    assert int(counts.min()) > 60  # 100 expected
    assert int(counts.max()) < 140


@pytest.mark.parametrize(
    ("num", "fraction"), [(-1, 0.5), (0, 0.5), (2.5, 0.5), (10, -0.1), (10, 1.1), (10, float("nan"))]
)
def test_bad_settings_raise(num, fraction):
    with pytest.raises(ValueError, match=r"^num=|^positive_fraction="):
        RandomSampler(num, fraction)
