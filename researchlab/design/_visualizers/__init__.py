"""How does a State become pictures and films?"""
