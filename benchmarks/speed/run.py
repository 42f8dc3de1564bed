"""Measure one outer step of priming, against what a user would pick instead.

python benchmarks/speed/run.py                     # everything, about 70 minutes on two cores
python benchmarks/speed/run.py --quick             # the targets' lines on a small shape, under five minutes
python benchmarks/speed/run.py --only main,memory  # some groups; the others' results stay
"""

from speedbench.command import main

if __name__ == "__main__":
    raise SystemExit(main())
