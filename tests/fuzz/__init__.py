"""Fuzzing of everything that strangers write: `make fuzz`. See `targets`."""
