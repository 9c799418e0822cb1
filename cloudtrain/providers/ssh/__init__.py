"""Machines of the user's own: a lab box, a rented container, WSL. Reached, used, never ended."""
