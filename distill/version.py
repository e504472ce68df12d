"""The version of distill."""

__version__ = "0.1.0"
