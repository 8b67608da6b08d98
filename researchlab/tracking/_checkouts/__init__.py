"""How does a user's own checkout become the code of a run, and go back? The parts of ``rlab restore``."""
