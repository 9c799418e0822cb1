"""What only this machine knows about a run: its folder and its append-only journal."""
