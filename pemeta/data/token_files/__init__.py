"""Token files: one word a line with a tag, in the columns and formats in which data sets come."""
