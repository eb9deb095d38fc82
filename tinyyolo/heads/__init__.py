"""Feature maps -> losses and boxes. Add a head: a class and one line in its table."""

from tinyyolo.heads.c5 import C5Head
from tinyyolo.heads.cascade import CascadeHead
from tinyyolo.heads.grid import GridHead
from tinyyolo.heads.points.fcos import FCOSHead
from tinyyolo.heads.points.foveabox import FoveaHead
from tinyyolo.heads.points.reppoints import RepPointsHead
from tinyyolo.heads.retina import RetinaHead
from tinyyolo.heads.roi import RoIHead
from tinyyolo.heads.rpn import RPNHead
from tinyyolo.heads.ssd import SSDHead
from tinyyolo.heads.yolo import YoloHead
from tinyyolo.heads.yolov3 import YOLOv3Head

HEADS = {"retina": RetinaHead, "yolo": YoloHead}  # of one-stage detectors
HEADS |= {"yolov3": YOLOv3Head, "ssd": SSDHead}
HEADS |= {"fcos": FCOSHead, "foveabox": FoveaHead, "reppoints": RepPointsHead}
RPN_HEADS = {"rpn": RPNHead}  # propose the regions of two-stage detectors
ROI_HEADS = {"roi": RoIHead, "cascade": CascadeHead, "c5": C5Head, "grid": GridHead}  # classify them
