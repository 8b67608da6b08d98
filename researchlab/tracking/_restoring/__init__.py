"""Where do the objects of a recorded tree come from, and how does it come back? The parts of ``restore``."""
