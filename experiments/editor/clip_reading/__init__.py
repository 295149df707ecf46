"""Reading clips: what is read is what a viewer or player shows, and everything that was done to it is said.

folder of images --folders--> series --images--> pictures --geometry--> frames
video file ------------------------- streams -->
stack or animated image ------------- images -->
"""

from experiments.editor.clip_reading.reading import Clip, open_clip, read_clip

__all__ = ["Clip", "open_clip", "read_clip"]
