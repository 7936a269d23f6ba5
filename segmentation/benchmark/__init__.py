"""The program beside what people would use in its place, on one input in one run."""
