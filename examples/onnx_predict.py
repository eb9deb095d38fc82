"""Detects with a .onnx file of tinyyolo: numpy, onnxruntime and Pillow alone, as `tinyyolo predict tile=off` does.

    python onnx_predict.py best.onnx image.jpg [more.png ...] [conf=0.25] [imgsz=640]

Prints file, class, score, and x1 y1 x2 y2 in pixels. Without conf= and imgsz= the model's own scores and size count.
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

STRIDE, GREY = 32, 114


def resized(image, width, height):
    """An image (H, W, 3) uint8 in another size, by the integers of OpenCV's bilinear interpolation."""
    for new, axis, shift in ((width, 1, 4), (height, 0, 16)):
        at = np.float32((np.arange(new) + 0.5) * (image.shape[axis] / new) - 0.5).clip(0, image.shape[axis] - 1)
        low, part = at.astype(int), np.rint(at % 1 * 2048).astype(int).reshape(-1, *[1] * (2 - axis))
        parts = (image.take(low, axis) * (2048 - part), image.take(low + 1, axis, mode="clip") * part)
        image = sum(parts) >> shift if axis else sum(part >> shift for part in parts)
    return (image + 2 >> 2).astype(np.uint8)


class Detector:
    """A file: `names` of its classes, and detections of an image."""

    def __init__(self, path):
        onnxruntime.set_default_logger_severity(3)  # it warns of inputs that may be left out
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        said = self.session.get_modelmeta().custom_metadata_map
        self.names = list(json.loads(said["names"]).values())
        self.imgsz, self.pad_colour = max(json.loads(said["imgsz"])), json.loads(said["pad_colour"])

    def __call__(self, image, conf=None, imgsz=None):
        """Boxes (K, 4) xyxy px, scores (K,) and labels (K,) of an image (H, W, 3) uint8, RGB.

        conf: a score for all classes, or one for each; the file also takes iou (1,) and max_det (1,) int64.
        """
        pixels, scale, corner = self.fitted(image, imgsz or self.imgsz)
        given = {} if conf is None else {"score": np.broadcast_to(np.float32(conf), len(self.names))}
        boxes, scores, labels = self.session.run(["boxes", "scores", "labels"], {"images": pixels, **given})
        height, width = image.shape[:2]
        boxes = (boxes - np.float32(corner * 2)) / np.float32(scale * 2)
        return boxes.clip(0, np.float32([width, height] * 2)), scores, labels

    def fitted(self, image, imgsz):
        """(1, 3, H, W) RGB in [0, 1] with the image in it, the factors of its width and height, and its corner."""
        height, width = image.shape[:2]
        ratio = min(imgsz / height, imgsz / width)
        new = [max(round(side * ratio), 1) for side in (width, height)]
        if new != [width, height]:
            image = resized(image, *new)
        spare = [-side % STRIDE for side in new]
        left, top = (0, 0) if self.pad_colour else (round(side / 2 - 0.1) for side in spare)
        pixels = np.full((new[1] + spare[1], new[0] + spare[0], 3), self.pad_colour or GREY / 255, np.float32)
        pixels[top : top + new[1], left : left + new[0]] = image.astype(np.float32) / np.float32(255)
        scale = [new[0] / width, new[1] / height]
        return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None]), scale, (left, top)


def main(path, *words):
    """See the top of the file."""
    keys = dict(word.split("=", 1) for word in words if "=" in word)
    detector = Detector(path)
    options = {"conf": float(keys["conf"]) if "conf" in keys else None, "imgsz": int(keys.get("imgsz", 0))}
    for file in (word for word in words if "=" not in word):
        try:
            image = np.asarray(ImageOps.exif_transpose(Image.open(file)).convert("RGB"))
        except OSError as error:
            sys.exit(f"{file}: cannot be read: {error}")
        for box, score, label in zip(*detector(image, **options), strict=True):
            print(file, detector.names[label], f"{score:.4f}", *(f"{side:.3f}" for side in box), sep="\t")


if __name__ == "__main__":
    main(*sys.argv[1:])
