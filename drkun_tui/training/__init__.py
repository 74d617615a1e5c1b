"""What a fine-tune is: recipe, data, the run on disk and the process that trains."""
