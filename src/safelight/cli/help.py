"""Print the help of commands: paragraphs as wide as the terminal, and not as their docstrings are wrapped."""

from __future__ import annotations

import re
from typing import Any

from cyclopts.help import DefaultFormatter, InlineText
from rich.console import Console, ConsoleOptions
from rich.text import Text

_LINE_END = re.compile(r"(?<!\n)\n(?!\n)")


class Formatter(DefaultFormatter):
    """cyclopts' formatter, which keeps the ends of lines of descriptions."""

    def render_description(self, console: Console, options: ConsoleOptions, description: Any) -> None:
        """Print the description of a command."""
        if isinstance(description, InlineText) and isinstance(text := description.primary_renderable, Text):
            description.primary_renderable = Text(_LINE_END.sub(" ", text.plain))
        super().render_description(console, options, description)
