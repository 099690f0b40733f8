"""Clips through the VAE."""
