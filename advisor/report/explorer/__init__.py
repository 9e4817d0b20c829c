"""The interactive explorer: one HTML file with the figures of a question and the program that shows them."""
