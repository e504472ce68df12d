"""A trained student in the forms in which others run it, each loaded again before it counts."""
