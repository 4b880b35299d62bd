"""The parser of a subcommand of ours, which shows its help without importing torch or anomalib."""

from __future__ import annotations

from typing import Any

from jsonargparse import ActionConfigFile, ArgumentParser
from jsonargparse.util import import_object

from anomalib_medical.registration import register

PROGRAM = "anomalib-medical"


class CommandParser(ArgumentParser):
    """jsonargparse's parser; with ``only_help`` for nothing but its help."""

    def __init__(self, *args: Any, only_help: bool = False, **kwargs: Any) -> None:  # noqa: ANN401 - jsonargparse's
        super().__init__(*args, **kwargs)
        self._only_help = only_help

    def add_config_option(self) -> None:
        """Declare ``--config``, for a file with the other arguments."""
        self.add_argument("-c", "--config", action=ActionConfigFile, help="YAML or JSON file with the arguments.")

    def add_class_option(self, name: str, base: str, text: str) -> None:
        """Declare ``--name CLASS --name.argument VALUE``, of a subclass of the class with this path."""
        if self._only_help:
            self.add_argument(f"--{name}.help", metavar="CLASS", help="Show the arguments of such a class.")
            self.add_argument(f"--{name}", metavar="CLASS | YAML", required=True, help=text)
        else:
            register()
            self.add_subclass_arguments(import_object(base), name, required=True, help=text)
