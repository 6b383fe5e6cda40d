"""Tiny tasks with a difficulty dial (`chain`) and tiny models trained for them from scratch (`base`, which needs torch)."""
