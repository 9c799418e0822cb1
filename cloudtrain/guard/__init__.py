"""What a machine is told so that it ends by itself; `guard.py` runs there, alone."""
