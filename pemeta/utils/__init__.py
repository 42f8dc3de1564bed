"""Helpers independent of models and training: files, digests, registries, devices, processes, signals, seeds.

Nothing here is public.
"""
