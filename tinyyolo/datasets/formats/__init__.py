"""Formats of annotations, a file each; `table.FORMATS` names them all. The reader of COCO JSON needs numpy alone."""
