"""What stands in a figure that was written as SVG."""

import xml.etree.ElementTree as ElementTree

SVG = "{http://www.w3.org/2000/svg}"


def words_of(path):
    """Its texts, in the order of the file."""
    return ["".join(text.itertext()) for text in ElementTree.parse(path).iter(f"{SVG}text")]


def boxes_of(path):
    """Colour of a line -> how many boxes are drawn with it, the samples of the legend left out."""
    counts = {}
    for group in ElementTree.parse(path).iter(f"{SVG}g"):
        if group.get("id", "").startswith("PatchCollection"):
            for shape in (*group.iter(f"{SVG}path"), *group.iter(f"{SVG}use")):
                style = dict(part.split(": ") for part in shape.get("style", "").split("; ") if part)
                if "stroke" in style:
                    counts[style["stroke"]] = counts.get(style["stroke"], 0) + 1
    return counts
