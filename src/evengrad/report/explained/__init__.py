"""What findings, activations and initialisers mean -> pages with pictures, generated."""
