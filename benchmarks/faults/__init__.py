"""Healthy programs and seeded faults -> how well `diagnose` tells what is wrong, and how often it cries for nothing."""
