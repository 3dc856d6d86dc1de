"""Apply the operations of a recipe to pixels."""
