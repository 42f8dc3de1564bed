"""What is learned: tasks with their examples, and the episodes that priming draws from them."""
