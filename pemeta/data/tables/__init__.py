"""Tables, in files, on the hub or in Python: their rows, the words and tags in their columns, and their splits."""
