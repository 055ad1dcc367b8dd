"""Runs, manifests, artefacts, lineage and their index: bytes and facts, no networks. Imports no JAX."""
