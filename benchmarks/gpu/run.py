"""Ten checks of pemeta on one GPU, the most telling first, in at most eight minutes.

python benchmarks/gpu/run.py                       # on the GPU; the report goes to results/, under the GPU's name
python benchmarks/gpu/run.py --small --device cpu  # the script itself, on a processor, in two minutes; to runs/gpu/
"""

from gpucheck.command import main

if __name__ == "__main__":
    raise SystemExit(main())
