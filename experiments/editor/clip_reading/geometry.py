"""From stored pixels to the square that is looked at: turned, stretched to square pixels, cropped, averaged down."""

import numpy as np

from experiments.editor.clips import resize_area

_CHANNELS_APART = 1 << 24
"""Above so many values the channels are averaged one after the other, which takes a third of the memory."""

_EXIF_TURNS = {
    # EXIF orientation: (transposed, flipped upside down, mirrored), in this order
    1: (False, False, False),
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}


def turn(pixels: np.ndarray, transposed: bool, upside_down: bool, mirrored: bool) -> np.ndarray:
    """(height, width, ..) with rows and columns exchanged, then upside down, then mirrored, as asked."""
    turned = np.swapaxes(pixels, 0, 1) if transposed else pixels
    turned = turned[::-1] if upside_down else turned
    return turned[:, ::-1] if mirrored else turned


def exif_turn(orientation: int) -> tuple[bool, bool, bool]:
    """What `turn` does for a value of EXIF's Orientation (TIFF 6.0, tag 274); nothing for a value out of 1 to 8."""
    return _EXIF_TURNS.get(orientation, _EXIF_TURNS[1])


def matrix_turn(a: float, b: float, c: float, d: float) -> tuple[bool, bool, bool] | None:
    """What `turn` does for a display matrix of ISO 14496-12; None where it is no turn by right angles.

    (x', y') = (a x + c y, b x + d y),  x to the right and y down
    """
    entries = [abs(value) for value in (a, b, c, d)]
    if entries[0] == entries[3] > 0 and entries[1] == entries[2] == 0:
        return False, d < 0, a < 0
    if entries[1] == entries[2] > 0 and entries[0] == entries[3] == 0:
        return True, b < 0, c < 0
    return None


def fit(values: np.ndarray, white: int, aspect: float, size: int) -> np.ndarray:
    """The central square of a picture, as it is shown, averaged down to size x size.

    Args:
        values: (height, width, 3) of any real dtype; `white` is what white has.
        aspect: width of a stored pixel over its height.

    Returns:
        float32 (size, size, 3) in [0, 1]; `clips.resize_area` of the values where the pixels are square.
    """
    height, width = values.shape[:2]
    if aspect == 1:
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        square = values[top : top + side, left : left + side]
        if square.size > _CHANNELS_APART:
            resized = np.concatenate([resize_area(square[..., k : k + 1] / white, size) for k in range(3)], axis=-1)
        else:
            resized = resize_area(square / white, size)
        return np.clip(resized, 0, 1)
    shown_width = width * aspect
    side = min(height, shown_width)
    rows = area_weights((height - side) / 2, side, height, size)
    columns = area_weights((width - side / aspect) / 2, side / aspect, width, size)
    channels = [rows @ (values[..., k] / white) @ columns.T for k in range(3)]
    return np.clip(np.stack(channels, axis=-1), 0, 1).astype(np.float32)


def whole(values: np.ndarray, white: int, aspect: float) -> np.ndarray:
    """The whole picture in square pixels, float32 in [0, 1]: its height is kept, its width multiplied by `aspect`."""
    if aspect == 1:
        return (values / white).astype(np.float32)
    width = values.shape[1]
    columns = area_weights(0, width, width, max(1, round(width * aspect)))
    channels = [(values[..., k] / white) @ columns.T for k in range(3)]
    return np.clip(np.stack(channels, axis=-1), 0, 1).astype(np.float32)


def area_weights(start: float, length: float, count: int, size: int) -> np.ndarray:
    """(size, count): the part of new pixel i that old pixel j covers; the new ones divide [start, start + length].

    Rows sum to one.
    """
    edges = start + np.arange(size + 1) * (length / size)
    pixels = np.arange(count)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return np.clip(overlap, 0, None) * (size / length)
