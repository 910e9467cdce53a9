"""The printed settings beside what raygrid has: for each row the place, or why there is none."""
