"""What the operations of a recipe do to pixels."""
