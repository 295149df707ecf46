"""The editor: an adapter-in-UNet video editor on diffusers, peft and PyAV.

An edit with an adapter trained on the clip:

    editor = load_editor()
    frames = load_clip("carphone", "held_out")[:8]
    editor.add_adapter()
    train_adapter(editor, frames, "a plain video of a man in a car", steps=50, learning_rate=1e-3)
    edit = editor.edit(frames, "a plain video of a man in a car", "a sepia video of a man in a car", adapter=True)
    write_video("edit.mp4", edit.frames)
"""

from experiments.editor.clips import CLIPS, LOOKS, Clip, caption, load_clip
from experiments.editor.editor import Edit, Editor, load_editor
from experiments.editor.evidence import record_round_trip
from experiments.editor.inversion import Trajectory
from experiments.editor.objective import AdapterTraining, train_adapter
from experiments.editor.pipeline import Pipeline, build_pipeline, load_pipeline, save_pipeline
from experiments.editor.scheduler_audit import audit_schedulers
from experiments.editor.sharpness import adapter_curvature, safe_step
from experiments.editor.video import read_video, write_video

__all__ = [
    "CLIPS",
    "LOOKS",
    "AdapterTraining",
    "Clip",
    "Edit",
    "Editor",
    "Pipeline",
    "Trajectory",
    "adapter_curvature",
    "audit_schedulers",
    "build_pipeline",
    "caption",
    "load_clip",
    "load_editor",
    "load_pipeline",
    "read_video",
    "record_round_trip",
    "safe_step",
    "save_pipeline",
    "train_adapter",
    "write_video",
]
