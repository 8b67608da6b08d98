"""What did a run read beside its code? The parts of inputs."""
