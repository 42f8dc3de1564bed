"""Reading labelled sentences, and encoding them for a backbone."""
