"""A model and a batch -> structure and measurements."""
