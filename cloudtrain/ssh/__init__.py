"""The way to a machine: one verified connection, its channels, keys and tunnels.

No byte of ours, not even a user name, is offered to a host before its key matched
the pinned one. Fabric's own connection trusts whoever answers; ours never does.
"""
