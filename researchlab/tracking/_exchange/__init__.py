"""How does a run become one file, and a run again? The parts of ``exchange``."""
