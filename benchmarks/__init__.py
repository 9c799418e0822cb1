"""Measurements against yardsticks; nothing here is a test, and no test asserts a time."""
