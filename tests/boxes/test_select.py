"""Every rule of `grouped_nms` and `select`, by numbers worked out by hand: changing one fails a test."""

import pytest
import torch
from torch.testing import assert_close

from tinyyolo.boxes import nms
from tinyyolo.boxes.nms import grouped_nms, select


def row(*lefts, width=10.0):
    """Boxes (N, 4) of height 10 whose left edges are `lefts`."""
    return torch.tensor([[x, 0.0, x + width, 10.0] for x in lefts])


def one_class(*scores):
    return torch.tensor(scores)[:, None]


# Two boxes of width 10 shifted by d overlap by (10 - d) / (10 + d): 2 px .6667, 2.5 px .6, 5 px .3333.
APART = row(0, 20, 40)


class TestGroups:
    def test_survivors_come_by_falling_score(self):
        assert grouped_nms(APART, torch.tensor([0.2, 0.9, 0.5]), torch.zeros(3, dtype=torch.long), 0.5).tolist() == [
            1,
            2,
            0,
        ]

    def test_of_two_in_a_group_the_better_stays(self):
        scores = torch.tensor([0.6, 0.9])
        assert grouped_nms(row(0, 2), scores, torch.tensor([3, 3]), 0.5).tolist() == [1]
        assert grouped_nms(row(0, 2), scores, torch.tensor([3, 4]), 0.5).tolist() == [1, 0]

    @pytest.mark.parametrize(("most", "kept"), [(1, [0]), (2, [0, 4]), (3, [0, 4, 5]), (9, [0, 4, 5])])
    def test_the_best_few(self, most, kept):
        """Of the four best, which are looked at first for two, one survives: the others are found among all."""
        boxes, scores = row(0, 0.5, 1, 1.5, 40, 60), torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
        assert grouped_nms(boxes, scores, torch.zeros(6, dtype=torch.long), 0.5, most=most).tolist() == kept

    @pytest.mark.parametrize(("iou", "kept"), [(0.59, [0]), (0.61, [0, 1])])
    def test_both_sides_of_the_threshold(self, iou, kept):
        assert grouped_nms(row(0, 2.5), torch.tensor([0.9, 0.8]), torch.tensor([0, 0]), iou).tolist() == kept

    def test_an_overlap_of_exactly_the_threshold_stays(self):
        half = torch.cat([row(0), row(0, width=5.0)])
        assert grouped_nms(half, torch.tensor([0.9, 0.8]), torch.tensor([0, 0]), 0.5).tolist() == [0, 1]

    def test_a_suppressed_box_suppresses_nothing(self):
        """0 and 4 px overlap by .43, 4 and 8 px too, 0 and 8 px by .11: without the middle one, the last stays."""
        assert grouped_nms(row(0, 4, 8), torch.tensor([0.9, 0.8, 0.7]), torch.zeros(3).long(), 0.4).tolist() == [0, 2]

    def test_of_equal_scores_the_first_wins(self):
        assert grouped_nms(row(2, 0), torch.tensor([0.5, 0.5]), torch.tensor([0, 0]), 0.5).tolist() == [0]
        boxes, _, _ = select(row(2, 0), one_class(0.5, 0.5), 0.1, 0.5, 10)
        assert boxes[:, 0].tolist() == [2]

    def test_nothing(self):
        assert grouped_nms(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0).long(), 0.5).tolist() == []

    def test_a_trace_keeps_the_loop_over_groups(self):
        """Traced on one group, it still tells three apart."""
        few = row(0), torch.tensor([0.9]), torch.tensor([0])
        traced = torch.jit.trace(lambda b, s, g: grouped_nms(b, s, g, 0.5), few, check_trace=False)
        many = row(0, 0, 1, 0), torch.tensor([0.6, 0.9, 0.8, 0.7]), torch.tensor([0, 1, 1, 2])
        assert traced(*many).tolist() == grouped_nms(*many, 0.5).tolist() == [1, 3, 0]


class TestSelect:
    def test_the_least_score_itself_is_too_little(self):
        _, scores, _ = select(APART, one_class(0.5, 0.25, 0.125), 0.25, 0.5, 10)
        assert scores.tolist() == [0.5]

    @pytest.mark.parametrize("votes", [1, 2])
    def test_every_class_above_it_is_a_detection(self, votes):
        both = torch.tensor([[0.5, 0.75], [0.1, 0.4]])
        boxes, _, labels = select(row(0, 20), both, 0.15, 0.5, 10, votes=votes)
        assert (labels.tolist(), boxes[:, 0].tolist()) == ([1, 0, 1], [0, 0, 20])

    @pytest.mark.parametrize(("classes", "labels"), [(None, [1, 0]), ([0], [0]), ((1,), [1]), ({0, 1}, [1, 0])])
    def test_classes(self, classes, labels):
        assert select(row(0), torch.tensor([[0.5, 0.75]]), 0.1, 0.5, 10, classes=classes)[2].tolist() == labels

    def test_a_class_that_is_left_out_does_not_fill_the_candidates(self):
        _, scores, labels = select(row(0), torch.tensor([[0.5, 0.75]]), 0.1, 0.5, 10, max_candidates=1, classes=[0])
        assert (scores.tolist(), labels.tolist()) == ([0.5], [0])

    def test_agnostic_suppresses_across_classes(self):
        scores = torch.tensor([[0.5, 0.0], [0.0, 0.75]])
        assert select(row(0, 2), scores, 0.1, 0.5, 10)[2].tolist() == [1, 0]
        boxes, _, labels = select(row(0, 2), scores, 0.1, 0.5, 10, agnostic=True)
        assert (labels.tolist(), boxes[:, 0].tolist()) == ([1], [2])

    def test_the_best_candidates_enter(self):
        """The two best are neighbours: one suppresses the other, and the third never entered."""
        boxes, scores, _ = select(row(40, 0, 2), one_class(0.3, 0.9, 0.8), 0.1, 0.5, 10, max_candidates=2)
        assert (boxes[:, 0].tolist(), len(scores)) == ([0], 1)
        assert len(select(row(40, 0, 2), one_class(0.3, 0.9, 0.8), 0.1, 0.5, 10, max_candidates=3)[1]) == 2

    def test_as_many_candidates_as_may_enter_all_do(self):
        assert len(select(APART, one_class(0.3, 0.9, 0.8), 0.1, 0.5, 10, max_candidates=3)[1]) == 3

    def test_max_det_counts_survivors_and_keeps_the_best(self):
        """The second best is suppressed and takes no place."""
        _, scores, _ = select(row(0, 1, 20, 40), one_class(0.9, 0.8, 0.3, 0.7), 0.1, 0.5, 2)
        assert_close(scores, torch.tensor([0.9, 0.7]))

    def test_max_det_is_taken_before_the_vote(self):
        """The lone .9 takes the only place and falls to .45; the .8 with a twin would have voted to .75."""
        boxes, scores, _ = select(row(0, 20, 20.5), one_class(0.9, 0.8, 0.7), 0.1, 0.5, 1, votes=2)
        assert boxes[:, 0].tolist() == [0]
        assert_close(scores, torch.tensor([0.45]))

    @pytest.mark.parametrize(("minimum", "score"), [(0.3, 0.5), (0.0005, 0.5)])
    def test_those_under_the_least_score_vote_too(self, minimum, score):
        """(.8 + .2) / 2, whatever the least score."""
        _, scores, _ = select(row(0, 1), one_class(0.8, 0.2), minimum, 0.5, 10, votes=2)
        assert_close(scores, torch.tensor([score]))

    def test_but_they_are_no_detections_themselves(self):
        """At NMS .9 neither suppresses the other (.82); with the better one's vote the worse would reach .525."""
        boxes, _, _ = select(row(0, 1), one_class(0.8, 0.25), 0.25, 0.9, 10, votes=2)
        assert boxes.shape == (1, 4)

    def test_a_least_score_under_the_least_of_a_voter_holds(self):
        """(.0008 + .0004) / 2: both are less than a voter needs elsewhere."""
        _, scores, _ = select(row(0, 1), one_class(0.0008, 0.0004), 0.0001, 0.5, 10, votes=2)
        assert_close(scores, torch.tensor([0.0006]))

    def test_but_not_those_under_the_least_of_a_voter(self):
        at = nms.VOTER_SCORE
        box, scores, _ = select(row(0, 1), one_class(0.8, at), 0.3, 0.5, 10, votes=2)
        assert_close(scores, torch.tensor([0.4]))
        assert_close(box, row(0))

    def test_a_voted_score_of_the_least_score_is_too_little(self):
        assert len(select(row(0), one_class(0.5), 0.25, 0.5, 10, votes=2)[1]) == 0
        assert len(select(row(0), one_class(0.5), 0.24, 0.5, 10, votes=2)[1]) == 1

    @pytest.mark.parametrize(("shift", "score"), [(2.0, 0.8), (2.5, 0.45)])
    def test_voters_overlap_by_65_hundredths(self, shift, score):
        """2 px off is an overlap of .667, 2.5 px of .6. NMS at .5 takes both away."""
        _, scores, _ = select(row(0, shift), one_class(0.9, 0.7), 0.1, 0.5, 10, votes=2)
        assert_close(scores, torch.tensor([score]))

    def test_voters_are_of_the_same_class(self):
        scores = torch.tensor([[0.8, 0.0], [0.0, 0.7]])
        assert_close(select(row(0, 1), scores, 0.1, 0.5, 10, agnostic=True, votes=2)[1], torch.tensor([0.4]))

    def test_half_precision_comes_out_as_float32(self):
        boxes, scores, _ = select(row(0).half(), one_class(0.5).half(), 0.1, 0.5, 10)
        assert boxes.dtype == scores.dtype == torch.float32
