"""The values that cross the seams: frozen dataclasses, no behaviour but arithmetic."""
