"""Every picture, drawn from plain numbers alone."""
