"""The report of a study: a page and two tables."""
