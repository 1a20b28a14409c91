"""What a model decides about a text, a file for each task: where F is read, and what targets mean."""
