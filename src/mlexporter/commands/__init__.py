"""The commands of the program that are more than a few lines."""
