"""Detects with a .onnx file of tinyyolo: numpy, onnxruntime and OpenCV alone, as `tinyyolo predict tile=off` does.

    python onnx_predict.py best.onnx image.jpg [more.png ...] [conf=0.25] [imgsz=640]

Prints a line for each detection: file, class, score, and x1 y1 x2 y2 in pixels of the image. Without conf= each class
is shown from the score on that the model's validation found, without imgsz= the image is shown at the model's own size.
"""

import json
import sys

import cv2
import numpy as np
import onnxruntime

STRIDE, GREY = 32, 114


class Detector:
    """A file: `names` of its classes, and detections of an image."""

    def __init__(self, path):
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        said = self.session.get_modelmeta().custom_metadata_map
        self.names = list(json.loads(said["names"]).values())
        self.imgsz, self.pad_colour = max(json.loads(said["imgsz"])), json.loads(said["pad_colour"])

    def __call__(self, image, conf=None, imgsz=None):
        """Boxes (K, 4) xyxy px, scores (K,) and labels (K,) of an image (H, W, 3) uint8, blue first, as OpenCV reads.

        conf: a score for all classes, or one for each.
        """
        pixels, scale, corner = self.fitted(image, imgsz or self.imgsz)
        inputs = {"images": pixels}
        if conf is not None:  # iou (1,) and max_det (1,) int64 may be given as well
            inputs["score"] = np.broadcast_to(np.float32(conf), len(self.names))
        boxes, scores, labels = self.session.run(["boxes", "scores", "labels"], inputs)
        height, width = image.shape[:2]
        boxes = (boxes - np.float32(corner * 2)) / np.float32(scale * 2)
        return boxes.clip(0, np.float32([width, height] * 2)), scores, labels

    def fitted(self, image, imgsz):
        """(1, 3, H, W) RGB in [0, 1] with the image in it, the factors of its width and height, and its corner."""
        height, width = image.shape[:2]
        ratio = min(imgsz / height, imgsz / width)
        new = [max(round(side * ratio), 1) for side in (width, height)]
        if new != [width, height]:
            image = cv2.resize(image, new)
        spare = [-side % STRIDE for side in new]
        corner = [0, 0] if self.pad_colour else [round(side / 2 - 0.1) for side in spare]
        end = [side - first for side, first in zip(spare, corner, strict=True)]
        sides = (corner[1], end[1], corner[0], end[0])
        image = cv2.copyMakeBorder(image, *sides, cv2.BORDER_CONSTANT, value=(GREY,) * 3)
        pixels = image[..., ::-1].astype(np.float32) / np.float32(255)
        if self.pad_colour:
            pixels[new[1] :], pixels[:, new[0] :] = self.pad_colour, self.pad_colour
        scale = [new[0] / width, new[1] / height]
        return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None]), scale, corner


def main(path, *words):
    """See the top of the file."""
    keys = dict(word.split("=", 1) for word in words if "=" in word)
    detector = Detector(path)
    options = {"conf": float(keys["conf"]) if "conf" in keys else None, "imgsz": int(keys.get("imgsz", 0))}
    for file in (word for word in words if "=" not in word):
        if (image := cv2.imread(file)) is None:
            sys.exit(f"{file}: cannot be read")
        for box, score, label in zip(*detector(image, **options), strict=True):
            print(file, detector.names[label], f"{score:.4f}", *(f"{side:.3f}" for side in box), sep="\t")


if __name__ == "__main__":
    main(*sys.argv[1:])
