"""Tables of what the world offers, with their sources, and pure functions over them."""
