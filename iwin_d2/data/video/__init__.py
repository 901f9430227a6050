"""Video for classification: frames by index, clips, transforms, lists of files, generated clips."""
