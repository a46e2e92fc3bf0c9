"""The searchers that can come to every network of any space."""

from __future__ import annotations

from nas.resolve import names

LISTS = ("mix_n_match", "nested_lookup")  # ask for what they know of and nothing else: test_nested_searchers
SEARCHERS = [name for name in names("searcher") if name not in LISTS]
