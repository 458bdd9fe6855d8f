"""`mlcl search --interactive`: a prompt at which a hit can become the next reference."""

import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mlcl_cli.cli.command import CommandContext
from mlcl_cli.cli.render import say, show_error
from mlcl_cli.cli.render_search import show_search
from mlcl_cli.errors import MlclError, UsageError
from mlcl_cli.signals import received
from mlcl_cli.suggestions import did_you_mean

if TYPE_CHECKING:  # they import torch
    from mlcl_cli.workflows.retriever import Hit, Query
    from mlcl_cli.workflows.search import SearchSettings
    from mlcl_cli.workflows.search_engine import SearchEngine

PROMPT = "search> "
HELP = {
    "WORDS": "change the reference, or search for them without one",
    "N, or N WORDS": "make hit N the reference, changed by words",
    "/image FILE": "make an image the reference",
    "/item ID": "make an item of the catalog the reference",
    "/new": "forget the reference",
    "/words WORDS": "search for words that begin with a number or a slash",
    "/where CONDITIONS": "filter, as /where price < 80; without conditions, stop filtering",
    "/k N": "how many rows to find",
    "/quit": "end",
}
PICK = re.compile(r"(\d+)(?:\s+(.*))?")


@dataclass
class SearchSession:
    """The reference, the words and the settings so far, and the last hits."""

    context: CommandContext
    engine: "SearchEngine"
    query: "Query"
    settings: "SearchSettings"
    hits: Sequence["Hit"] = field(default_factory=list)

    def run(self) -> None:
        """Search until the input ends. Errors are shown; Ctrl-C and Ctrl-D end it like /quit."""
        terminal = sys.stdin.isatty()
        if terminal:
            with suppress(ImportError):
                import readline  # noqa: F401  # gives `input` history and editing
        if not self.context.json:
            say("Type words to search for, or /help")
        try:
            if self._has_query:
                self._attempt(None)
            while (line := _read(PROMPT if terminal else "")) is not None and line not in ("/quit", "/exit", "/q"):
                if line:
                    self._attempt(line)
        except KeyboardInterrupt:
            if received() not in (None, "Ctrl-C"):
                raise
        if terminal:
            sys.stderr.write("\n")

    def _attempt(self, line: str | None) -> None:
        """Do what a line says; where that fails, everything stays as it was before."""
        before = self.query, self.settings
        try:
            if line is None or self._change(line):
                self._search()
        except MlclError as error:
            self.query, self.settings = before
            show_error(error)

    def _search(self) -> None:
        from mlcl_cli.workflows.search import run_search

        result = run_search(self.engine, self.query, self.settings)
        self.hits = result.hits
        self.context.show(result.as_json(), lambda: show_search(result))
        sys.stdout.flush()

    @property
    def _has_query(self) -> bool:
        return bool(self.query.text or self.query.image or self.query.item)

    def _change(self, line: str) -> bool:
        """Do what a line says, and return whether to search."""
        if line.startswith("/"):
            name, _, argument = line.partition(" ")
            return self._command(name, argument.strip())
        pick = PICK.fullmatch(line)
        if pick is None or not self.hits:
            self.query = replace(self.query, text=line)
            return True
        number = int(pick[1])
        if not 1 <= number <= len(self.hits):
            raise UsageError(
                f"there is no hit {number}", remedy=f"Choose one from 1 to {len(self.hits)}, or use /words"
            )
        self.query = replace(self.query, text=pick[2], image=None, item=self.hits[number - 1].id)
        return True

    def _command(self, name: str, argument: str) -> bool:
        if name == "/help":
            width = max(map(len, HELP))
            for usage, meaning in HELP.items():
                say(f"{usage:{width}}  {meaning}")
            return False
        if name == "/new":
            self.query, self.hits = replace(self.query, text=None, image=None, item=None), []
            return False
        if name == "/where":
            self.engine.conditions(argument)
            self.settings = replace(self.settings, where=argument or None)
            return self._has_query
        if name == "/k":
            if not argument.isdecimal() or int(argument) < 1:
                raise UsageError(f"must be a number from 1 on, not {argument!r}", where="/k")
            self.settings = replace(self.settings, k=int(argument))
            return self._has_query
        if name not in ("/image", "/item", "/words"):
            names = [usage.partition(" ")[0] for usage in HELP if usage.startswith("/")]
            raise UsageError(f"unknown command {name}{did_you_mean(name, names)}", remedy="/help lists them")
        if not argument:
            raise UsageError("needs a value", where=name, remedy="/help shows which")
        if name == "/words":
            self.query = replace(self.query, text=argument)
        elif name == "/image":
            self.query = replace(self.query, text=None, item=None, image=Path(argument).expanduser())
        else:
            self.query = replace(self.query, text=None, image=None, item=argument)
        return True


def _read(prompt: str) -> str | None:
    """The next line, stripped; None at the end of the input."""
    try:
        return input(prompt).strip()
    except EOFError:
        return None
