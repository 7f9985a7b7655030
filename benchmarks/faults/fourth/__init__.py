"""The fourth set: programs, mistakes and healthy runs made without looking at rules, after the other halves had been used."""
