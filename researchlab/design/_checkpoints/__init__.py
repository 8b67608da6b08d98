"""How does a State get to disk and back, bit for bit?"""
