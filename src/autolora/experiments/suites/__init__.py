"""The papers' tables and figures as suites: grids of runs, beside the numbers that were published."""
