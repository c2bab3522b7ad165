"""What layers cost, and how fast networks train."""
