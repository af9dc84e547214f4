"""Operators, one folder each: a reference that is the definition, and faster implementations of it."""
