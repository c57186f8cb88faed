"""Images of a class side by side in one small picture, inside the page."""

from __future__ import annotations

import base64
import io

from torch import Tensor

COLUMNS = 10
"""Images of a class that are shown."""


def strip(pixels: Tensor, columns: int = COLUMNS) -> tuple[str, int]:
    """The first images in a row, a pixel apart: the address of a WebP picture, and how many they are.

    Args:
        pixels: (n, c, h, w) floats in [0, 1]; of other than 3 channels the first is shown, grey.
        columns: at most as many.
    """
    from PIL import Image

    shown = pixels[:columns].detach().cpu()
    if shown.shape[1] != 3:
        shown = shown[:, :1].expand(-1, 3, -1, -1)
    n, _, h, w = shown.shape
    sheet = shown.new_ones(3, h, n * (w + 1) - 1)
    for place, one in enumerate(shown):
        sheet[:, :, place * (w + 1) : place * (w + 1) + w] = one
    codes = (sheet.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).contiguous().numpy()
    buffer = io.BytesIO()
    Image.fromarray(codes).save(buffer, "WEBP", quality=88, method=4)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}", n
