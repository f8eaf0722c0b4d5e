"""How fast a model is, and how much memory it takes."""
