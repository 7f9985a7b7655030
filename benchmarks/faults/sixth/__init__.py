"""The sixth set: ordinary programs and ordinary mistakes, as papers list them, by hands that had not read the rules."""
