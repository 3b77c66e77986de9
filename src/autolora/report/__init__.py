"""From run folders to one HTML file that explains itself: what was measured, how sure it is, and what is missing."""
