"""What the records of a study say."""
