"""Machines of kind `nspawn`: a booted Debian each, with systemd, sudo, apt and cloud-init.

For root on Linux. Nothing of a machine can be seen outside it but a folder, a network
interface and its processes: its mounts live in a mount namespace of its own.
"""
