"""Objects followed from frame to frame: ultralytics' ByteTrack and BoT-SORT, with association for tiny objects."""
