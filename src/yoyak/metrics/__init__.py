"""What makes a number a score: analysers of morphemes, and ROUGE."""
