"""The groups under which `--help` shows the settings of all commands."""

from __future__ import annotations

GOAL, SEARCH, RESULT = "Target and limits", "Search", "Result"
MODEL, DATA, TRAINING, RUN = "Space and recipe", "Data", "Training", "Run"
TEXT, SERVER, OUTPUT = "Text", "Server", "Output"
GROUPS = (GOAL, SEARCH, RESULT, MODEL, DATA, TRAINING, TEXT, SERVER, RUN, OUTPUT)  # as `--help` shows them
