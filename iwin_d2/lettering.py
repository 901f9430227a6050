"""The letters and colours of pictures with text on them, such as legends and tables."""

from PIL import ImageFont

__all__ = ["FAINT", "INK", "PAPER", "cut_text", "load_font"]

PAPER, INK, FAINT = (255, 255, 255), (25, 25, 30), (110, 110, 120)


def load_font(size: int):
    """Pillow's own font; nothing has to be installed for it."""
    try:
        return ImageFont.load_default(size)
    except TypeError:  # Pillow before 10.1 has one size only
        return ImageFont.load_default()


def cut_text(text: str, font, width: int) -> str:
    """The text, or as much of it as fits into `width` pixels, with dots."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}...") > width:
        text = text[:-1]
    return f"{text}..."
