"""Networks and data to experiment with."""
