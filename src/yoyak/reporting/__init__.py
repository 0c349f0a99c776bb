"""Tables, pages and comparisons for a reader."""
