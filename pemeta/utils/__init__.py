"""What knows nothing of models and training: files, digests, registries, devices, processes, signals, seeds.

Nothing in it is public.
"""
