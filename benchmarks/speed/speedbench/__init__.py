"""What `benchmarks/speed/run.py` runs: time and memory of one outer step, against what a user would pick instead."""
