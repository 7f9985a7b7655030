"""A network and how it is trained, chosen on a page -> what its signals do; computed in a process of its own."""
