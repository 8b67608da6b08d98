"""The pytest plugin of researchlab; ``plugin`` holds the hooks."""
