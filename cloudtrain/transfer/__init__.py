"""Bytes between home and the machine: push of code and data, fetch of what was trained.

Nothing here decides what to train or where machines come from; it is told a
`Remote`, local paths and a `Layout`, and moves what differs.
"""
