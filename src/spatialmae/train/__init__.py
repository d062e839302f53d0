"""Training of the non-linear MAE: exact to resume, in processes side by side; needs torch and numpy alone."""
