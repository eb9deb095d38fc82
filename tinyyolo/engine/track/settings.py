"""What `tracker=` names: a YAML as ultralytics' users know it, with the keys of our association beside theirs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tinyyolo.boxes.similarity import CONSTANT
from tinyyolo.config import UserError, construct, find_yaml, load_yaml, shown, suggest, whole, within
from tinyyolo.engine.track.association import Association

AUTO = "auto"
FOLDER = "cfg/trackers"
LOW_SHARE = 0.4  # of the high threshold is the low one: ultralytics' .1 of .25
GMC = ("sparseOptFlow", "orb", "sift", "ecc", "none")
Score = float | str


class Thresholds(NamedTuple):
    """Scores of each class, (C,) each.

    Attributes:
        high: detections from it on are matched first.
        low: others above it only continue tracks.
        new: what begins a track has it at least.
    """

    high: np.ndarray
    low: np.ndarray
    new: np.ndarray


@dataclass(frozen=True)
class ByteTrackSettings:
    """The keys of a ByteTrack YAML; each may be left out.

    Attributes:
        tracker_type: bytetrack.
        track_high_thresh: detections above it are matched first; auto: what `conf=` says.
        track_low_thresh: others, down to it, only continue tracks; auto: LOW_SHARE of the high one.
        new_track_thresh: what begins a track; auto: the high one.
        track_buffer: frames after which a lost track is given up.
        match_thresh: largest cost, 1 - similarity, of the first stage.
        second_thresh: of the second, which ultralytics has fixed at .5.
        fuse_score: multiply similarities of the first stage by the score.
        association, constant, gate, slack, expand: see `Association`; constant auto is the model's own.
    """

    tracker_type: str = "bytetrack"
    track_high_thresh: Score = AUTO
    track_low_thresh: Score = AUTO
    new_track_thresh: Score = AUTO
    track_buffer: int = 30
    match_thresh: float = 0.8
    second_thresh: float = 0.5
    fuse_score: bool = False
    association: str = "nwd"
    constant: Score = AUTO
    gate: float | None = 1.0
    slack: float = 4.0
    expand: float = 2.0

    def __post_init__(self) -> None:
        for key in ("track_high_thresh", "track_low_thresh", "new_track_thresh", "constant"):
            value = getattr(self, key)
            if isinstance(value, str) and value != AUTO:
                raise UserError(f"{key}={value}: expected a number or {AUTO}")
            if value != AUTO and key != "constant":
                within(0, 1, **{key: value})
        within(0, 1, match_thresh=self.match_thresh, second_thresh=self.second_thresh)
        whole(1, track_buffer=self.track_buffer)
        if self.slack < 0:
            raise UserError(f"slack={shown(self.slack)}: expected 0 or more")
        self.associate(CONSTANT)

    def associate(self, constant: float) -> Association:
        """What says how alike two boxes are; `constant` is the model's C, px."""
        own = constant if isinstance(self.constant, str) else self.constant
        return Association(self.association, own, self.gate, self.slack, self.expand)

    def thresholds(self, conf: float | tuple[float, ...], classes: int) -> Thresholds:
        """The thresholds of each class; `conf` is what `conf=` says, one number or one a class.

        Examples:
            >>> _, low, new = ByteTrackSettings(new_track_thresh=0.6).thresholds((0.5, 0.1), 2)
            >>> low.round(3).tolist(), new.tolist()
            ([0.2, 0.04], [0.6, 0.6])
        """
        high = np.full(classes, self.or_auto("track_high_thresh", conf), dtype=float)
        low = np.minimum(self.or_auto("track_low_thresh", LOW_SHARE * high), high)
        return Thresholds(high, low, np.full(classes, self.or_auto("new_track_thresh", high), dtype=float))

    def or_auto(self, key: str, otherwise: Any) -> Any:
        """The number that is set, or `otherwise` for auto."""
        return otherwise if (value := getattr(self, key)) == AUTO else value


@dataclass(frozen=True)
class BotSortSettings(ByteTrackSettings):
    """The keys of a BoT-SORT YAML: ByteTrack's, and

    Attributes:
        gmc_method: how the camera's motion is found: sparseOptFlow, orb, sift, ecc or none.
        proximity_thresh, appearance_thresh, with_reid, model: re-identification, which no model here has features for.
    """

    tracker_type: str = "botsort"
    gmc_method: str = GMC[0]
    proximity_thresh: float = 0.5
    appearance_thresh: float = 0.8
    with_reid: bool = False
    model: str = AUTO

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.gmc_method not in GMC:
            raise UserError(f"gmc_method={self.gmc_method}: unknown; {suggest(self.gmc_method, GMC)}")
        if self.with_reid:
            raise UserError("with_reid=true: no model here has features to tell objects apart by; set it to false")


SETTINGS: dict[str, Callable[..., ByteTrackSettings]] = {"bytetrack": ByteTrackSettings, "botsort": BotSortSettings}


def settings_of(tracker: str | Path, **over: Any) -> ByteTrackSettings:
    """The settings of a YAML, a path or a name in cfg/trackers; `over` are keys of it, None is no word.

    Raises:
        UserError: no such file, no such tracker, an unknown key or a bad value; names the file, and the choices.

    Examples:
        >>> settings_of("bytetrack.yaml", association="iou").association
        'iou'
    """
    path = find_yaml(tracker, FOLDER)
    content = load_yaml(path)
    kind = content.get("tracker_type")
    if not isinstance(kind, str) or kind not in SETTINGS:
        raise UserError(f"{path}: tracker_type={shown(kind)}: unknown; {suggest(kind, SETTINGS)}")
    given = {key: value for key, value in over.items() if value is not None}
    try:
        made: ByteTrackSettings = construct(SETTINGS[kind], {**content, **given}, "")
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return made


def constant_of(spec: Mapping[str, Any]) -> float:
    """C of a model YAML's assigner, px; where it has none that of its head, or the paper's.

    Examples:
        >>> constant_of({"rpn": {"assigner": {"constant": 8}}}), constant_of({"head": {"constant": "auto"}})
        (8.0, 12.7)
    """
    sections = [section for key in ("head", "rpn") if isinstance(section := spec.get(key), Mapping)]
    for part in [*(section.get("assigner") for section in sections), *sections]:
        if isinstance(part, Mapping) and isinstance(found := part.get("constant"), (int, float)):
            return float(found)
    return CONSTANT
