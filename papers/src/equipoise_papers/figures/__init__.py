"""The papers' own figures, made again: one folder or file a figure, each behind ``equipoise figure NAME``."""
