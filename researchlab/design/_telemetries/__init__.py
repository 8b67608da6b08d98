"""How do metrics and parameters get to those who watch?"""
