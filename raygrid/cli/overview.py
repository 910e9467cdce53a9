"""What `raygrid --help` shows: the commands by what a person wants, with examples."""

from __future__ import annotations

import argparse

from raygrid.cli.options import CommandParser

COMMAND_GROUPS = {
    "before a run": ("doctor", "download", "list", "plan"),
    "run": ("run", "reproduce", "submit", "status"),
    "results": ("table", "report", "show", "evaluate", "figure", "sync"),
    "images": ("poison", "inspect"),
}
COMMAND_EXAMPLES = (
    "raygrid list attacks",
    "raygrid plan --attacks clean lsp --defenses standard jpeg --seeds 0 1 2",
    "raygrid run photo_digits/lsp/jpeg/small_cnn/supervised/quick/0",
    "raygrid reproduce apbench --table 3 --scale smoke",
    "raygrid table defense",
)


class Overview(CommandParser):
    """The parser of the command line itself, whose help groups the commands."""

    def format_help(self) -> str:
        texts = self._texts()
        width = max(map(len, texts)) + 2
        grouped = {name for names in COMMAND_GROUPS.values() for name in names}
        rest = tuple(name for name in texts if name not in grouped)
        lines = [self.format_usage().rstrip(), "", self.description or ""]
        for title, names in (*COMMAND_GROUPS.items(), ("other", rest)):
            there = [name for name in names if name in texts]
            if there:
                lines += ["", f"{title}:", *(f"  {n:<{width}}{texts[n]}" for n in there)]
        lines += ["", "examples:", *(f"  {example}" for example in COMMAND_EXAMPLES)]
        return "\n".join([*lines, "", "`raygrid COMMAND --help` has the options.", ""])

    def _texts(self) -> dict[str, str]:
        """The commands and what each does."""
        (commands,) = (a for a in self._actions if isinstance(a, argparse._SubParsersAction))
        return {str(each.dest): each.help or "" for each in commands._choices_actions}
