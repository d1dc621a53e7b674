"""What runs in, or directly starts, the process of a program."""
