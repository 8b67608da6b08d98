"""The commands of ``rlab``, and what they print."""
