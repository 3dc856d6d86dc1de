"""What Python projects need: their lock file, their wheels, their bytecode."""
