"""What is on disk, and what does git make of it? The parts of ``snapshot``."""
