"""Searchers, one file each; `searcher(space, ...)` makes one."""
