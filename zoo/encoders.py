"""Encoders that any plugin may use: words (or characters) of a text, pixels of an image."""

from __future__ import annotations


class WordEncoder:
    """Placeholder until the real one lands in this file."""


class PixelEncoder:
    """Placeholder until the real one lands in this file."""
