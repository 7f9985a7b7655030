"""The fifth set: programs, operators and healthy runs by hands that had not read the rules."""
