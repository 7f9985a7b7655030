"""The half that is only reported: programs, mistakes and healthy runs made without looking at rules, and never used to mend them."""
