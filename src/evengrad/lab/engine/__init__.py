"""Many networks of one shape -> one network, trained at once."""
