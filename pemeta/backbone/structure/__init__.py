"""What a backbone is made of, found from its modules and from passes of a tiny batch: layers and their parts."""
