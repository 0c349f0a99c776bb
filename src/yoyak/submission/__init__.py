"""What is sent to the competition, and how it scored there."""
