"""Feature maps -> losses and boxes. Add a head: a class and one line in its table."""

from tinyyolo.heads.cascade import CascadeHead
from tinyyolo.heads.points.fcos import FCOSHead
from tinyyolo.heads.points.foveabox import FoveaHead
from tinyyolo.heads.points.reppoints import RepPointsHead
from tinyyolo.heads.retina import RetinaHead
from tinyyolo.heads.roi import RoIHead
from tinyyolo.heads.rpn import RPNHead
from tinyyolo.heads.yolo import YoloHead

HEADS = {"retina": RetinaHead, "yolo": YoloHead}  # of one-stage detectors
HEADS |= {"fcos": FCOSHead, "foveabox": FoveaHead, "reppoints": RepPointsHead}
RPN_HEADS = {"rpn": RPNHead}  # propose the regions of two-stage detectors
ROI_HEADS = {"roi": RoIHead, "cascade": CascadeHead}  # classify them
