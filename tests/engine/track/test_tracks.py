"""`tinyyolo track` and `Model.track`: from a drawn video to MOT text, JSON and a video; frames in files."""

import json

import cv2
import numpy as np
import pytest

from tests.support.command import command
from tests.support.scenes import lively_model, scene
from tests.test_cli import call
from tinyyolo import Model
from tinyyolo.config import UserError
from tinyyolo.datasets.drawn.moving import Movie, draw_video

SIDE, COUNT = 128, 5
HOW = {"imgsz": SIDE, "verbose": False}


@pytest.fixture(scope="module")
def frames():
    movie = Movie(size=SIDE, frames=COUNT, objects=12, side=12.0, pan=0.5, shake=0.0)
    return [frame.image for frame in draw_video(1, movie)]


@pytest.fixture(scope="module")
def model():
    return Model("tinyyolo-n.pt")


def video(path, frames, code="MJPG"):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*code), 10, frames[0].shape[1::-1])
    for frame in frames:
        writer.write(frame)
    writer.release()
    return path


def pictures(folder, frames):
    folder.mkdir()
    for number, frame in enumerate(frames, 8):  # 8, 9, 10: names do not sort as numbers do
        cv2.imwrite(str(folder / f"f{number}.png"), frame)
    return folder


def test_from_a_video_to_mot_text(frames, tmp_path):
    video(tmp_path / "flight.mp4", frames, "mp4v")
    command("track", source="flight.mp4", out="[tracks.txt,tracks.json]", save_txt=True, save_conf=True, **HOW)
    rows = np.loadtxt(tmp_path / "tracks.txt", delimiter=",", ndmin=2)
    assert rows.shape[1] == 10 and (rows[:, 7:] == -1).all() and set(rows[:, 0]) == set(range(1, COUNT + 1))
    assert (rows[:, 2:4] + rows[:, 4:6] / 2 > 0).all() and (rows[:, 2:4] + rows[:, 4:6] <= SIDE + 1e-3).all()
    lengths = np.unique(rows[:, 1], return_counts=True)[1]
    assert (lengths >= COUNT - 1).sum() >= 3, "objects are followed"
    listed = json.loads((tmp_path / "tracks.json").read_text())
    same = [[row["frame"], row["track_id"], *row["bbox"], row["score"]] for row in listed]
    np.testing.assert_allclose(same, rows[:, :7], atol=1e-3)
    assert {row["category_name"] for row in listed} <= set(Model("tinyyolo-n.pt").names.values())
    run = tmp_path / "runs" / "track"
    text = np.loadtxt(run / "labels" / "flight_2.txt", ndmin=2)
    assert sorted(text[:, -1]) == sorted(rows[rows[:, 0] == 2, 1])
    drawn = cv2.VideoCapture(str(next(run.glob("flight.*"))))
    assert int(drawn.get(cv2.CAP_PROP_FRAME_COUNT)) == COUNT


def test_frames_in_a_folder_are_one_video_in_order(model, frames, tmp_path):
    """In a folder, a glob, a list file, or as arrays: the same ids; `frame` counts the images."""
    folder = pictures(tmp_path / "seq", frames)
    names = [folder / f"f{number}.png" for number in range(8, 8 + COUNT)]
    (tmp_path / "list.txt").write_text("\n".join(map(str, names)))
    arrays = model.track(frames, **HOW)
    ids = [result.boxes.id.tolist() for result in arrays]
    assert sum(map(len, ids)) > 3 * COUNT and set(ids[0]) & set(ids[-1])
    for source in (folder, f"{folder}/*.png", tmp_path / "list.txt", names):
        results = model.track(source, batch=2, **HOW)
        assert [result.frame for result in results] == list(range(1, COUNT + 1))
        assert [result.path for result in results] == list(map(str, names))
        assert [result.boxes.id.tolist() for result in results] == ids, source


def test_each_video_begins_anew_unless_tracks_persist(model, frames, tmp_path):
    files = [pictures(tmp_path / name, frames[:2]) for name in "ab"]
    first, _, second, _ = model.track(files, **HOW)
    assert first.boxes.id.tolist() == second.boxes.id.tolist(), "ids begin at 1"
    one_by_one = [model.track(frame, persist=True, **HOW)[0] for frame in frames]
    assert [result.boxes.id.tolist() for result in one_by_one] == [
        result.boxes.id.tolist() for result in model.track(frames, **HOW)
    ]
    again = model.track(frames[0], **HOW)[0]
    assert again.boxes.id.tolist() == one_by_one[0].boxes.id.tolist(), "without persist a call knows nothing"
    with pytest.raises(UserError, match=r"out=.txt: .* has 2: track them one by one, or write .json"):
        model.track(files, out="t.txt", **HOW)
    assert not (tmp_path / "t.txt").exists()


def test_every_second_frame_has_its_number_in_the_video(model, frames, tmp_path):
    file = video(tmp_path / "v.avi", frames)
    assert [result.frame for result in model.track(file, vid_stride=2, **HOW)] == [2, 4]


def test_predict_and_track_take_turns(model, frames):
    (before,) = model.predict(frames[0], **HOW)
    (tracked,) = model.track(frames[0], **HOW)
    (after,) = model.predict(frames[0], **HOW)
    assert before.boxes.data.equal(after.boxes.data) and not after.boxes.is_track
    assert tracked.boxes.is_track and len(tracked) == len(before), "a track begins where predict shows something"
    found = {tuple(row) for row in before.boxes.xyxy.round(decimals=2).tolist()}
    assert {tuple(row) for row in tracked.boxes.xyxy.round(decimals=2).tolist()} == found


def test_scores_of_the_checkpoint_or_of_the_yaml(model, frames, tmp_path):
    (tmp_path / "my.yaml").write_text("tracker_type: botsort\ntrack_high_thresh: 0.5\nnew_track_thresh: 0.6")
    (sure,) = model.track(frames[0], tracker=tmp_path / "my.yaml", **HOW)
    (asked,) = model.track(frames[0], conf=0.6, tracker="bytetrack.yaml", **HOW)
    assert sure.boxes.conf.tolist() == asked.boxes.conf.tolist() and (sure.boxes.conf > 0.6).all()
    with pytest.raises(UserError, match=r"conf=0.3: .*my.yaml says track_high_thresh=0.5; auto there takes conf="):
        model.track(frames[0], conf=0.3, tracker=tmp_path / "my.yaml", **HOW)


def test_large_frames_are_seen_in_windows(tmp_path):
    """Frames of 200 px for a network of 64: what predict finds in them, drawn at their size."""
    model, frames = lively_model(), [scene(100, 200, seed) for seed in (0, 1)]
    how = {"imgsz": 64, "project": tmp_path, "verbose": False}
    file = video(tmp_path / "v.avi", frames)
    (tmp_path / "sure.yaml").write_text("tracker_type: bytetrack\ntrack_low_thresh: 1.0")  # down to the high one
    (alone,) = model.predict(cv2.VideoCapture(str(file)).read()[1], conf=0.2, **how)
    found = model.predict(file, conf=0.2, save=True, name="p", **how)
    tracked = model.track(file, conf=0.2, save=True, name="t", tracker=tmp_path / "sure.yaml", **how)
    assert len(tracked[0]) == len(found[0]) == len(alone) > 10 and tracked[1].orig_shape == (100, 200)
    assert not found[0].boxes.data.equal(found[1].boxes.data), "the second frame is looked at itself"
    for run in "pt":
        drawn = cv2.VideoCapture(str(next((tmp_path / run).glob("v.*"))))
        assert drawn.get(cv2.CAP_PROP_FRAME_COUNT) == 2 and drawn.get(cv2.CAP_PROP_FRAME_WIDTH) == 200


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ["tracker=ocsort.yaml"],
            "nor a name in cfg/trackers; did you mean 'botsort.yaml'? Choices: botsort.yaml, byte",
        ),
        (["association=giou"], "association=giou: unknown; did you mean"),
        (["out=tracks.csv"], "no form of tracks: '.csv'; "),
        (["out=there.txt"], "there.txt: exists; exist_ok=true replaces it"),
        (["shard=0/2"], "shard=0/2: track does not take it"),
        (["engine=ray"], "engine=ray: track does not take it"),
        (["actors=2"], "actors=2: track does not take it"),
        (["persist=yes, please"], "persist=yes, please: expected true or false"),
        (["source=there.txt.mp4"], "no readable image"),
        (["source=nowhere.mp4"], "source=nowhere.mp4: no such file or folder"),
    ],
)
def test_mistakes_are_one_line(words, says, tmp_path, capsys):
    (tmp_path / "there.txt").write_text("kept")
    (tmp_path / "there.txt.mp4").write_text("not a video")
    source = [] if words[0].startswith("source") else ["source=there.txt.mp4"]
    code, _, err = call("track", *source, "imgsz=128", *words, capsys=capsys)
    assert code == 2 and says in err and err.strip().count("\n") <= 1
    assert (tmp_path / "there.txt").read_text() == "kept" and not (tmp_path / "runs").exists()
