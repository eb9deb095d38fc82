"""What benchmarks/track.py counts: figures of tracks worked out by hand."""

import numpy as np
import pytest

from benchmarks.track import Detector, judged, together
from tinyyolo.datasets.drawn.moving import Frame, Movie, draw_video

PIXELS = np.zeros((9, 9, 3), np.uint8)
BOX, ASIDE = [10.0, 10, 14, 14], [11.0, 11, 15, 15]  # IoU 9/23; sqrt(2) px apart, so DotD e^(-sqrt(2)/4) = .70


def video(ids, box):
    """Truth of one object in four frames, and tracks (ids by frame) at `box`."""
    truth = [Frame(PIXELS, np.array([BOX]), np.array([7]), np.array([0]))] * 4
    tracks = [np.array([[*box, number, 0.9, 0, 0]]) for number in ids]
    return together([judged(truth, tracks, 4.0)])


def test_a_whole_track():
    found = video([3, 3, 3, 3], BOX)
    assert found["HOTA"] == pytest.approx(100) and found["MOTA"] == found["IDF1"] == found["IDF1 IoU"] == 100
    assert found["IDSW"] == 0


def test_a_track_in_halves():
    """One of two halves is the object: IDTP 2, IDFN 2, IDFP 2; one change of four: MOTA 75."""
    found = video([3, 3, 5, 5], BOX)
    assert found["IDF1"] == 50 and found["MOTA"] == 75 and found["IDSW"] == 1
    assert found["SO-AssA"] == pytest.approx(50, abs=0.1)


def test_a_step_aside_is_lost_to_iou_and_not_to_dotd():
    """DotD .70 passes 14 of the 19 thresholds .05, .10, ...; IoU .39 seven."""
    found = video([3, 3, 3, 3], ASIDE)
    assert found["IDF1"] == 100 and found["IDF1 IoU"] == 0
    assert found["SO-HOTA"] == pytest.approx(100 * 14 / 19, abs=0.1)
    assert found["HOTA"] == pytest.approx(100 * 7 / 19, abs=0.1)


def test_simulated_detections_are_the_truth_with_errors():
    frames = list(draw_video(0, Movie(size=64, frames=20, objects=8, side=6.0)))
    rows = np.concatenate(Detector().found(frames, 1, 6.0))
    count = sum(len(frame.ids) for frame in frames)
    assert 0.9 * count - 3 * np.sqrt(0.09 * count) < len(rows) < 0.9 * count + 2 * 20 + 25
    exact = Detector(jitter=0, share=0, stretch=0, miss=0, weak=0, alarms=0).found(frames, 1, 6.0)
    np.testing.assert_allclose(exact[3][:, :4], frames[3].boxes)
    assert (exact[3][:, 4] >= 0.25).all()
    assert all(
        np.array_equal(a, b) for a, b in zip(exact, Detector(0, 0, 0, 0, 0, 0).found(frames, 1, 6.0), strict=True)
    )
