"""Other frameworks' trainings -> watched: one file a framework, each with an extra of its own; none is imported before it is asked for."""
