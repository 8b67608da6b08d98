"""What a Loop is made of, a question a module."""
